package outreach

// Files that are taken in: plain or compressed, growing, renamed.

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// sourceFile is a file that is read.
type sourceFile struct {
	file   *os.File
	packed bool // with gzip, whatever its name
}

// gzipMagic begins a file of gzip (RFC 1952 section 2.3.1).
var gzipMagic = []byte{0x1f, 0x8b}

// errNoFile is the error about what has a name like a file, and no beginning to which one can go back.
var errNoFile = errors.New("it is no regular file, so its place in the ledger cannot be kept; write what comes from there into a file first")

func openSource(path string) (*sourceFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a pipe would wait for its writer
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, cmp.Or(err, errNoFile)
	}
	begin := make([]byte, len(gzipMagic))
	n, err := f.ReadAt(begin, 0)
	if err != nil && err != io.EOF {
		f.Close()
		return nil, err
	}
	return &sourceFile{file: f, packed: bytes.Equal(begin[:n], gzipMagic)}, nil
}

func (s *sourceFile) Close() error { return s.file.Close() }

// begin is the content from its beginning on.
func (s *sourceFile) begin() (io.Reader, error) {
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if !s.packed {
		return s.file, nil
	}
	return gzip.NewReader(bufio.NewReaderSize(s.file, 64<<10))
}

// identify says by what the file is known again, under any name, copied and compressed: the
// first complete line. Lines that many files begin with are left aside: empty ones, and
// those that journalctl begins with. Empty where there is no such line yet.
func (s *sourceFile) identify() (string, error) {
	r, err := s.begin()
	if err != nil {
		return "", cutOff(err)
	}
	begin := make([]byte, mostLine)
	n, err := io.ReadFull(r, begin)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return "", err
	}
	first := begin[:n]
	if n < len(begin) {
		first = first[:bytes.LastIndexByte(first, '\n')+1]
	}
	for line := range eachLine(first) {
		if len(bytes.TrimSpace(line)) > 0 && !bytes.HasPrefix(line, []byte("-- ")) {
			first = line
			break
		}
	}
	if len(bytes.TrimSpace(first)) == 0 {
		return "", nil
	}
	sum := sha256.Sum256(first)
	return hex.EncodeToString(sum[:]), nil
}

// cutOff makes a file of gzip that is still empty, or being written, one without lines.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// blocks reads from a place on, and gives complete lines with the places where they begin and end.
// In place of a line that is too long for a block comes one of the same place that is too long for
// anybody. What has no newline yet is left for another time. Buffers come from take. A context that is done ends it.
func (s *sourceFile) blocks(ctx context.Context, from int64, take func() []byte, give func(lines []byte, begin, end int64) bool) error {
	r, err := s.begin()
	if err == nil && from > 0 {
		if s.packed {
			_, err = io.CopyN(io.Discard, r, from)
		} else {
			_, err = s.file.Seek(from, io.SeekStart)
		}
	}
	if err != nil {
		return cutOff(err)
	}
	var rest []byte // of a line that is not complete
	var long int64  // bytes of one that is too long; they are not kept
	for ctx.Err() == nil {
		buf := take()
		n, err := fill(r, buf, copy(buf, rest))
		data := buf[:n]
		rest = rest[:0]
		first := bytes.IndexByte(data, '\n') + 1
		switch {
		case first == 0 && (long > 0 || n == len(buf)):
			long += int64(n)
			data = nil
		case first > 0 && long > 0:
			end := from + long + int64(first)
			if !give(overlong, from, end) {
				return nil
			}
			from, long, data = end, 0, data[first:]
		}
		end := bytes.LastIndexByte(data, '\n') + 1
		rest = append(rest, data[end:]...)
		if end > 0 {
			if !give(data[:end], from, from+int64(end)) {
				return nil
			}
			from += int64(end)
		}
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return ctx.Err()
}

// overlong stands for a line that is too long.
var overlong = append(bytes.Repeat([]byte{'?'}, mostLine), '\n')

// fill reads into a buffer that holds n bytes until it is full or there is no more. Unlike io.ReadFull it
// tells a file's end from one of gzip that is cut off.
func fill(r io.Reader, buf []byte, n int) (int, error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// eachLine gives lines without their newlines.
func eachLine(lines []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(lines) > 0 {
			line, after, _ := bytes.Cut(lines, []byte("\n"))
			if lines = after; !yield(line) {
				return
			}
		}
	}
}

// OldestFirst sorts the files of logs by their age, as their names have it: mail.log-20261101 or
// events-2026-11-01.jsonl before mail.log, and mail.log.2.gz before mail.log.1.
func OldestFirst(paths []string) {
	slices.SortStableFunc(paths, func(a, b string) int {
		x, y := ageOf(a), ageOf(b)
		return cmp.Or(strings.Compare(x.stem, y.stem), cmp.Compare(y.turns, x.turns), strings.Compare(x.date, y.date), strings.Compare(a, b))
	})
}

// age is what a name says of it.
type age struct {
	stem  string
	turns int    // how often it was rotated
	date  string // of the rotation; what has none is the newest
}

var datedName = regexp.MustCompile(`[-.](20\d\d-?\d\d-?\d\d(?:[-.]\d+)?)(\.[a-z]+)?$`)

func ageOf(path string) age {
	a := age{stem: strings.TrimSuffix(path, ".gz"), date: "~"}
	if m := datedName.FindStringSubmatchIndex(a.stem); m != nil {
		a.date = a.stem[m[2]:m[3]]
		a.stem = a.stem[:m[0]] + a.stem[m[3]:]
		return a
	}
	if stem, number, ok := cutLast(a.stem, "."); ok {
		if n, err := strconv.Atoi(number); err == nil && n > 0 {
			a.stem, a.turns = stem, n
		}
	}
	return a
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// EventFiles are the files of a log of events, the oldest first: the one at its path and
// those that were it.
func EventFiles(path string) ([]string, error) {
	dir, name := filepath.Split(path)
	stem := strings.TrimSuffix(name, filepath.Ext(name))
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if rest, ok := strings.CutPrefix(e.Name(), stem); ok && (strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, ".")) && e.Type().IsRegular() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	OldestFirst(files)
	return files, nil
}
