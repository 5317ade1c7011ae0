// Package cache keeps results of compiles on disk, found again by the command,
// the compiler and the content of everything that the compile read.
//
// It runs no compiler and does not know what a result holds. The method is
// ccache's direct mode (its manual, "How ccache works"); nothing else is taken
// from there.
package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
)

// How a result is found.
//
// The first key is a digest of the command, of the compiler's files and of the
// environment (Command.key). It names a manifest: a list of alternatives, each
// with the files that one compile read, their content's digests, and the
// digest of the result. An alternative is true if every file still has that
// content, and if no directory that includes are searched in has got a name
// that an include could now find first (place, in manifest.go).
//
// What stat says of a file (stamp) is recorded beside its digest, so that an
// unchanged file costs one stat and is not read.
//
// On disk, below the store's folder:
//
//	m/ab/HEX    manifests, by key
//	r/ab/HEX    results, by content
//	tmp/        files being written: each is renamed to its place when complete
//	size        upper bound of the bytes in use (usage)
//	lock        held by the process that evicts
//
// Nothing is synced to the disk: a file that a power failure leaves damaged
// fails its checksum, which is a miss.

// Store is a cache on disk. Goroutines and processes may share one.
type Store struct {
	dir   string
	limit int64 // bytes

	files    *files
	tools    tools
	enc      *zstd.Encoder
	dec      *zstd.Decoder
	tidy     sync.Once  // removes what killed processes left
	evicting sync.Mutex // one goroutine at a time; the lock file is for processes

	now  func() time.Time
	step func(point) // for tests: called at each step of a write
}

// point is a step of a write, at which a test may end the process.
type point string

// digest is a SHA-256.
type digest [sha256.Size]byte

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// The kinds of entries; also their folders.
const (
	manifests = "m"
	results   = "r"
)

// smallResult is the size, in bytes, up to which a result is kept within its
// manifest.
const smallResult = 512

// touchAfter throttles the note that an entry has been used.
const touchAfter = 10 * time.Minute

// Open returns the store in a folder, of at most limit bytes. The folder is
// made when something is first put into it.
func Open(dir string, limit int64) (*Store, error) {
	if dir == "" {
		return nil, errors.New("cache: no folder given")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0))
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	s := &Store{dir: abs, limit: limit, enc: enc, dec: dec, now: time.Now, step: func(point) {}}
	s.files = newFiles(func() time.Time { return s.now() })
	return s, nil
}

// Get returns the result of a command and the files that its compile read, as
// Put was given them. A damaged entry is removed and counts as not there; an
// error is a folder that cannot be read.
func (s *Store) Get(c Command) (payload []byte, deps []string, ok bool, err error) {
	if c.unfit() != "" {
		return nil, nil, false, nil
	}
	key := c.key(s.tools.identity(c))
	m, err := s.manifest(key)
	if err != nil || m == nil {
		return nil, nil, false, err
	}
	look := lookup{files: s.files, command: c, manifest: m, seen: make([]verdict, len(m.places)), fresh: make([]stamp, len(m.places))}
	for i := len(m.alternatives) - 1; i >= 0; i-- {
		a := m.alternatives[i]
		if !look.holds(a) {
			continue
		}
		payload, ok, err := s.result(a)
		if err != nil {
			return nil, nil, false, err
		}
		if ok {
			s.touch(manifests, key)
			s.renew(key, &look)
			return payload, m.names(a), true, nil
		}
	}
	return nil, nil, false, nil
}

// manifest reads a manifest; nil if there is none.
func (s *Store) manifest(key digest) (*manifest, error) {
	text, err := s.read(manifests, key)
	if err != nil || text == nil {
		return nil, err
	}
	m, err := decodeManifest(text)
	if err != nil {
		s.discard(manifests, key)
		return nil, nil
	}
	return m, nil
}

// result returns what an alternative leads to.
func (s *Store) result(a alternative) ([]byte, bool, error) {
	if a.small != nil {
		return bytes.Clone(a.small), true, nil
	}
	payload, err := s.read(results, a.result)
	if err != nil || payload == nil {
		return nil, false, err
	}
	if sha256.Sum256(payload) != a.result {
		s.discard(results, a.result)
		return nil, false, nil
	}
	s.touch(results, a.result)
	return payload, true, nil
}

// touch notes that an entry has been used.
func (s *Store) touch(kind string, name digest) {
	now := s.now()
	path := s.path(kind, name)
	if st, err := os.Stat(path); err == nil && now.Sub(st.ModTime()) >= touchAfter {
		_ = os.Chtimes(path, now, now) // only the order of eviction depends on it
	}
}

// staleStamps is how many files must have another stamp before a manifest is
// written anew for that.
const staleStamps = 16

// renew records the stamps of files that look different and are the same, as
// after a checkout of the same revision, so that they need not be read again.
func (s *Store) renew(key digest, l *lookup) {
	n := 0
	for i, f := range l.fresh {
		if f != 0 && f != l.manifest.places[i].stamp {
			l.manifest.places[i].stamp = f
			n++
		}
	}
	if n >= staleStamps {
		_, _ = s.write(manifests, key, l.manifest.encode()) // else the next Get reads them again
	}
}

// Put records a result. deps are the files that the compile read, named as by
// View.Name; started is a time before the compile began. A result that could
// not be trusted later is not stored: a file changed since the start, or its
// text depends on more than files. An error is a folder that cannot be written
// to; the store stays sound whatever happens.
func (s *Store) Put(c Command, deps []string, started time.Time, payload []byte) error {
	if c.unfit() != "" || s.limit <= 0 {
		return nil
	}
	s.tidy.Do(s.removeAbandoned)
	places, ok := s.files.places(c, deps, started)
	if !ok {
		return nil
	}
	a := alternative{deps: len(deps)}
	if len(payload) <= smallResult {
		a.small = append([]byte{}, payload...)
	} else {
		a.result = sha256.Sum256(payload)
		if stored, err := s.putResult(a.result, payload); err != nil || !stored {
			return err
		}
	}
	key := c.key(s.tools.identity(c))
	m, err := s.manifest(key)
	if err != nil {
		return err
	}
	if m == nil {
		m = &manifest{}
	}
	if _, err := s.write(manifests, key, m.with(a, places).encode()); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}

func (s *Store) putResult(name digest, payload []byte) (stored bool, err error) {
	if _, err := os.Stat(s.path(results, name)); err == nil {
		s.touch(results, name)
		return true, nil
	}
	if stored, err = s.write(results, name, payload); err != nil {
		return false, fmt.Errorf("cache: %w", err)
	}
	return stored, nil
}
