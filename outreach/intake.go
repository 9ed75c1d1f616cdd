package outreach

// Filling the ledger, from events and from the logs of other servers.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"mailreeve/events"
	"mailreeve/outreach/logs"
)

// Source is whose lines a file holds.
type Source string

// The sources.
const (
	Events  Source = "events"  // of the proxy
	Dovecot Source = "dovecot" // what Dovecot logs, or a syslog with its lines
	Postfix Source = "postfix" // the same of Postfix
)

// Tally is what was in files that were not in the ledger yet.
type Tally struct {
	Files      int      // with something new in them
	Known      int      // with nothing new
	Lines      int      // complete ones
	Logins     int      // confirmed ones, of an account
	Unverified int      // sessions of nobody who was confirmed: counts of them are kept
	Foreign    int      // lines of other programs
	Unknown    int      // lines that look as if they should be understood, and are not
	Samples    []string // the first of those
}

// mostSamples and longestSample bound what is shown of lines that were not understood.
const (
	mostSamples   = 5
	longestSample = 200
)

// add counts what another tally has.
func (t *Tally) add(o *Tally) {
	t.Files, t.Known = t.Files+o.Files, t.Known+o.Known
	t.Lines, t.Logins, t.Unverified = t.Lines+o.Lines, t.Logins+o.Logins, t.Unverified+o.Unverified
	t.Foreign, t.Unknown = t.Foreign+o.Foreign, t.Unknown+o.Unknown
	t.Samples = append(t.Samples, o.Samples[:min(len(o.Samples), mostSamples-len(t.Samples))]...)
}

// unknown counts a line that was not understood.
func (t *Tally) unknown(line []byte) {
	t.Unknown++
	if len(t.Samples) < mostSamples {
		t.Samples = append(t.Samples, cleanLine(string(line[:min(len(line), longestSample)]), longestSample))
	}
}

// ErrEnded is the error about a ledger whose campaign ended so long ago that it holds no
// accounts any more.
var ErrEnded = errors.New("the campaign is over, and the ledger holds no accounts any more")

// Intake fills a ledger. What a file holds enters it once, however often, in which pieces
// and under which names the file is read, and wherever reading was cut off.
type Intake struct {
	Ledger    *Ledger
	Networks  Networks
	Collector int                                              // accounts behind one address in a day that make a collector; 0: 50
	Brand     string                                           // of the sessions in logs
	Year      int                                              // of the first line of logs whose lines have none; 0: by the clock
	Elements  string                                           // Dovecot's login_log_format_elements, where it is not the default
	Resolve   func(brand, name string) string                  // whose account a name in a log is; nil: its own, in small letters
	Host      func(protocol, name string) (host, brand string) // what a server name in a log is; nil: not known
	Batch     int                                              // lines that enter the ledger in one transaction; 0: 200,000, and 20,000 in following

	following  bool       // it works beside a proxy that has customers to serve: with one processor and in small batches
	mu         sync.Mutex // guards the following
	generation string     // of the ledger, in which these numbers are true
	accounts   accountIDs
	shapes     shapeIDs
}

// usualBatch lets most of an hour of a large provider be one transaction, in some 100 MB.
const usualBatch = 200_000

// smallBatch is usual beside a proxy.
const smallBatch = 20_000

// batch is how many lines enter the ledger at once.
func (in *Intake) batch() int {
	usual := usualBatch
	if in.following {
		usual = smallBatch
	}
	return cmp.Or(in.Batch, usual)
}

// blockSize is how much is read at once.
const blockSize = 1 << 20

// mostLine bounds one line; what is longer is none of anybody's.
const mostLine = 256 << 10

// Read takes in files, in the order given: the oldest first. Logs of Postfix need that, since
// lines of one session may lie in two files. What was read before is counted as known. After an
// error the tally says what is in the ledger nevertheless.
func (in *Intake) Read(ctx context.Context, kind Source, paths ...string) (total Tally, err error) {
	r := in.reader(kind)
	for _, path := range paths {
		tally, err := in.file(ctx, r, path)
		total.add(&tally)
		if err != nil {
			return total, fmt.Errorf("reading %s: %w", path, err)
		}
	}
	return total, nil
}

// reader makes sheets of lines. A server's log is read by one parser with a memory, so by one
// worker; events by as many as there are processors.
type reader struct {
	kind    Source
	workers int
	parse   func(lines []byte, s *harvest)
}

func (in *Intake) reader(kind Source) *reader {
	w := newWays(in)
	r := &reader{kind: kind, workers: 1}
	if kind == Events {
		if !in.following {
			r.workers = runtime.GOMAXPROCS(0)
		}
		r.parse = w.events
		return r
	}
	opt := logs.Options{Zone: in.Ledger.opt.Zone, Brand: in.Brand, Year: in.Year, Now: in.Ledger.opt.Now(), Elements: in.Elements, Host: in.Host}
	parser := logs.Dovecot(opt)
	if kind == Postfix {
		parser = logs.Postfix(opt)
	}
	r.parse = func(lines []byte, s *harvest) {
		for line := range eachLine(lines) {
			s.tally.Lines++
			e, verdict := (*events.Session)(nil), logs.Unknown
			if len(line) < mostLine {
				e, verdict = parser.Line(line)
			}
			switch verdict {
			case logs.Login:
				if in.Resolve != nil {
					e.Account = in.Resolve(e.Brand, e.Account)
				}
				w.session(e, s)
			case logs.Foreign:
				s.tally.Foreign++
			case logs.Unknown:
				s.tally.unknown(line)
			}
		}
	}
	return r
}

// file takes in one file, from where it was left.
func (in *Intake) file(ctx context.Context, r *reader, path string) (total Tally, err error) {
	for {
		tally, err := in.attempt(ctx, r, path)
		tally.Files, tally.Known = 0, 0
		total.add(&tally)
		if !errors.Is(err, errElsewhere) || ctx.Err() != nil {
			if total.Lines > 0 {
				total.Files = 1
			} else {
				total.Known = 1
			}
			return total, err
		}
		if r.kind != Events {
			// The parser's memory is of lines further on now. Whoever was quicker goes on with this file.
			return total, fmt.Errorf("%w at the same time; try again when it has ended", err)
		}
	}
}

// errElsewhere is the error about a piece of a file that another process has taken in meanwhile.
var errElsewhere = errors.New("another process takes in this file")

// piece is a piece of a file on its way.
type piece struct {
	lines      []byte // complete ones
	begin, end int64  // their places in the uncompressed file
	harvest    harvest
	ready      chan struct{} // closed when harvest is complete
}

// attempt takes in a file until its end, or until another process gets in the way.
func (in *Intake) attempt(ctx context.Context, r *reader, path string) (total Tally, err error) {
	f, err := openSource(path)
	if err != nil {
		return total, err
	}
	defer f.Close()
	identity, err := f.identify()
	if identity == "" || err != nil {
		return total, err
	}
	place, err := in.Ledger.place(ctx, r.kind, identity)
	if err != nil {
		return total, err
	}
	ctx, stop := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	blocks, readErr := r.blocks(ctx, &running, f, place)
	batch, end := newBatch(), place
	write := func() error {
		if batch.tally.Lines == 0 {
			return nil
		}
		if err := in.write(ctx, r.kind, identity, place, end, batch); err != nil {
			return err
		}
		total.add(&batch.tally)
		place, batch = end, newBatch()
		return nil
	}
	for b := range blocks {
		<-b.ready
		if ctx.Err() != nil {
			return total, ctx.Err()
		}
		if b.end <= place {
			continue // it was read for the parser's memory alone
		}
		batch.merge(&b.harvest)
		end = b.end
		if batch.tally.Lines >= in.batch() {
			if err := write(); err != nil {
				return total, err
			}
		}
	}
	if err := write(); err != nil {
		return total, err
	}
	return total, *readErr
}

// blocks lets the workers make sheets of what stands in a file behind a place. They come in
// order. The error is that of reading, once all have come. A context that is done ends it.
func (r *reader) blocks(ctx context.Context, running *sync.WaitGroup, f *sourceFile, place int64) (<-chan *piece, *error) {
	from := int64(0)
	if r.kind == Events { // no line depends on those before
		from = place
	}
	readErr := new(error)
	work, order := make(chan *piece, r.workers), make(chan *piece, 2*r.workers)
	free := make(chan []byte, 4*r.workers)
	running.Go(func() {
		defer close(order)
		defer close(work)
		*readErr = f.blocks(ctx, from, func() []byte {
			select {
			case buf := <-free:
				return buf[:blockSize]
			default:
				return make([]byte, blockSize)
			}
		}, func(lines []byte, begin, end int64) bool {
			b := &piece{lines: lines, begin: begin, end: end, ready: make(chan struct{})}
			// First to whom it goes in the end: else a worker might wait for him, and he for another worker.
			for _, to := range []chan *piece{order, work} {
				select {
				case to <- b:
				case <-ctx.Done():
					close(b.ready)
					return false
				}
			}
			return true
		})
	})
	for range r.workers {
		running.Go(func() {
			for b := range work {
				known := max(0, min(place-b.begin, int64(len(b.lines)))) // bytes that are in the ledger
				if b.end <= place {
					known = int64(len(b.lines))
				}
				r.parse(b.lines[:known], new(harvest))
				r.parse(b.lines[known:], &b.harvest)
				if cap(b.lines) == blockSize {
					select {
					case free <- b.lines[:0]:
					default:
					}
				}
				b.lines = nil
				close(b.ready)
			}
		})
	}
	return order, readErr
}

// Follow takes in the files of a log of events, again and again, until the context ends: the
// one at the path, and those beside it that once were that. Several processes may
// follow the same files. After each look that brought something or failed, told is called;
// only [ErrEnded] ends it. What may not be kept any longer is deleted as days begin.
func (in *Intake) Follow(ctx context.Context, path string, every time.Duration, told func(Tally, error)) error {
	f := in.Follower(path)
	day := in.Ledger.today()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		tally, err := f.Look(ctx)
		if today := in.Ledger.today(); today != day {
			day = today
			_, expireErr := in.Ledger.Expire(ctx)
			err = errors.Join(err, expireErr)
		}
		if ctx.Err() != nil {
			return nil
		}
		if tally.Lines > 0 || err != nil {
			told(tally, err)
		}
		if errors.Is(err, ErrEnded) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Follower takes in what is new in the files of a log of events.
type Follower struct {
	in   *Intake
	path string
	seen map[string]fs.FileInfo // files as they were before they were read
}

// Follower follows the log of events at a path.
func (in *Intake) Follower(path string) *Follower {
	in.following = true
	return &Follower{in: in, path: path, seen: map[string]fs.FileInfo{}}
}

// Look reads what is new, the oldest first. Files that have not changed since are not opened.
func (f *Follower) Look(ctx context.Context) (total Tally, err error) {
	files, err := EventFiles(f.path)
	if err != nil {
		return total, fmt.Errorf("looking for events: %w", err)
	}
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is gone, or has its dated name now and is seen the next time
		} else if err != nil {
			return total, fmt.Errorf("looking for events: %w", err)
		}
		if was := f.seen[file]; was != nil && os.SameFile(was, info) && was.Size() == info.Size() && was.ModTime().Equal(info.ModTime()) {
			continue
		}
		tally, err := f.in.Read(ctx, Events, file)
		total.add(&tally)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return total, err
		}
		f.seen[file] = info
	}
	maps.DeleteFunc(f.seen, func(file string, _ fs.FileInfo) bool { return !slices.Contains(files, file) })
	return total, nil
}
