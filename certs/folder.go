package certs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A folder is read as others write it:
//
//   - certbot: SUBDIR/fullchain.pem with SUBDIR/privkey.pem, as in its folder live, whose
//     other files repeat these and whose README is passed over;
//   - a Kubernetes secret: tls.crt with tls.key, symbolic links through ..data;
//   - HAProxy: NAME.pem with the key inside;
//   - the rest of the world: NAME.pem or NAME.crt with NAME.key beside it.
//
// The first two may also lie in the folder itself. Nothing is read deeper than that. Hidden
// files, keys without a certificate, and files of other kinds are passed over, and so is a
// NAME.pem that holds authorities alone.

// maxEntries bounds what is looked at every few seconds: 10,000 certificates with their keys.
const maxEntries = 20_000

// Folder reads the certificates of a folder that a [Keeper] would use, whatever their dates.
// There is an [*Error] in bad for each one that cannot be used, and err is one if the folder
// itself cannot.
func Folder(dir string) (good []Info, bad []error, err error) {
	pairs, err := listFolder(dir)
	for _, p := range pairs {
		if e, err := p.found(); err == nil {
			good = append(good, e.info)
		} else if !p.bystander() {
			bad = append(bad, err)
		}
	}
	return good, bad, err
}

// found loads a pair that nobody has named, so that the cure must be another.
func (p Pair) found() (*entry, error) {
	e, err := p.load()
	if bad := new(Error); p.Key == "" && errors.As(err, &bad) && bad.Message == noKey {
		bad.Cure = "put it into the file, or beside it into one of the same name that ends in .key"
	}
	return e, err
}

// listFolder finds the pairs of a folder, sorted.
func listFolder(folder string) ([]Pair, error) {
	files, dirs, err := listDir(folder, maxEntries)
	if err != nil {
		return nil, err
	}
	pairs, rest := wellKnown(folder, files)
	for _, name := range rest {
		stem, isPEM := strings.CutSuffix(name, ".pem")
		if !isPEM {
			var isCRT bool
			if stem, isCRT = strings.CutSuffix(name, ".crt"); !isCRT {
				continue
			}
		}
		p := Pair{Cert: filepath.Join(folder, name)}
		if _, ok := slices.BinarySearch(rest, stem+".key"); ok {
			p.Key = filepath.Join(folder, stem+".key")
		}
		pairs = append(pairs, p)
	}
	for _, name := range dirs {
		if p, ok := inside(filepath.Join(folder, name)); ok {
			pairs = append(pairs, p)
		}
	}
	return pairs, nil
}

// wellKnownSets are the names of files that belong together: certificate, key, and what only
// repeats parts of them.
var wellKnownSets = [][]string{{"fullchain.pem", "privkey.pem", "cert.pem", "chain.pem"}, {"tls.crt", "tls.key", "ca.crt"}}

// inside finds the pair of a subdirectory. It is not listed: one that holds thousands of other
// files, or that we may not enter, such as lost+found, is no reason to load none of the folder.
// Where we may not enter a pair is taken to be, so that the log says what cannot be read.
func inside(dir string) (Pair, bool) {
	for _, set := range wellKnownSets {
		p := Pair{Cert: filepath.Join(dir, set[0]), Key: filepath.Join(dir, set[1])}
		if isFile(p.Cert) && isFile(p.Key) {
			return p, true
		}
	}
	return Pair{}, false
}

// isFile says whether there is a regular file, as far as we may know.
func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() || errors.Is(err, fs.ErrPermission)
}

// wellKnown finds the pairs whose files always have the same names, and returns the files
// that are not part of them. The names must be sorted.
func wellKnown(dir string, files []string) (pairs []Pair, rest []string) {
	rest = files
	for _, set := range wellKnownSets {
		_, cert := slices.BinarySearch(files, set[0])
		_, key := slices.BinarySearch(files, set[1])
		if cert && key {
			pairs = append(pairs, Pair{Cert: filepath.Join(dir, set[0]), Key: filepath.Join(dir, set[1])})
			rest = slices.DeleteFunc(slices.Clone(rest), func(name string) bool { return slices.Contains(set, name) })
		}
	}
	return pairs, rest
}

// listDir lists the regular files and the directories of a directory, also behind symbolic
// links, sorted. Hidden ones are left out, and so is what vanishes meanwhile.
func listDir(dir string, most int) (files, dirs []string, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil, unreadable(dir, "the folder", err)
	}
	defer f.Close()
	entries, err := f.ReadDir(most + 1)
	if err != nil && err != io.EOF {
		return nil, nil, unreadable(dir, "the folder", err)
	}
	if len(entries) > most {
		return nil, nil, &Error{File: dir, Message: fmt.Sprintf("there are more than %d files in it", most),
			Cure: "name a folder that holds the certificates in use and nothing else"}
	}
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		kind := entry.Type()
		if kind&fs.ModeSymlink != 0 {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				continue // a link to nothing; a pair that has lost its half says so itself
			}
			kind = info.Mode()
		}
		switch {
		case kind.IsDir():
			dirs = append(dirs, name)
		case kind.IsRegular():
			files = append(files, name)
		}
	}
	slices.Sort(files)
	slices.Sort(dirs)
	return files, dirs, nil
}

// bystander says whether a file that does not load is no business of ours: it holds no
// certificate, or authorities alone and no key.
func (p Pair) bystander() bool {
	if p.Key != "" {
		return false
	}
	blocks, err := readPEM(p.Cert)
	if err != nil {
		return false
	}
	certificates, keys := 0, 0
	for _, b := range blocks {
		if strings.HasSuffix(b.Type, "PRIVATE KEY") {
			keys++
		}
		if b.Type == "CERTIFICATE" {
			certificates++
		}
	}
	if certificates == 0 || keys > 0 {
		return certificates == 0
	}
	chain, err := p.chain()
	return err == nil && chain[0].IsCA
}
