package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Files of the store begin with magic and the SHA-256 of the rest, which is a
// zstd frame (RFC 8878).
const magic = "klpcch1\n"

// grain is the unit in which files take space, in bytes.
const grain = 4096

func occupied(size int64) int64 { return (size + grain - 1) / grain * grain }

func (s *Store) path(kind string, name digest) string {
	hex := name.String()
	return filepath.Join(s.dir, kind, hex[:2], hex)
}

func (s *Store) tempDir() string { return filepath.Join(s.dir, "tmp") }

// read returns an entry's content; nil if there is none, or only a damaged one,
// which is removed.
func (s *Store) read(kind string, name digest) ([]byte, error) {
	data, err := os.ReadFile(s.path(kind, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	const head = len(magic) + sha256.Size
	if len(data) >= head && string(data[:len(magic)]) == magic {
		sum := sha256.Sum256(data[head:])
		if bytes.Equal(sum[:], data[len(magic):head]) {
			if text, err := s.dec.DecodeAll(data[head:], nil); err == nil {
				return text, nil
			}
		}
	}
	s.discard(kind, name)
	return nil, nil
}

func (s *Store) discard(kind string, name digest) {
	_ = os.Remove(s.path(kind, name)) // if it stays, it stays a miss
}

// The steps of a write, in their order.
const (
	beforeTemp    point = "before-temp"
	beforeReserve point = "before-reserve"
	beforeWrite   point = "before-write"
	halfWritten   point = "half-written"
	beforeRename  point = "before-rename"
	afterRename   point = "after-rename"
)

// writeSteps are all of them.
var writeSteps = []point{beforeTemp, beforeReserve, beforeWrite, halfWritten, beforeRename, afterRename}

// write makes an entry, or replaces it, in one step as seen by others. Where
// there is no room, nothing happens and stored is false.
func (s *Store) write(kind string, name digest, content []byte) (stored bool, err error) {
	data := append(make([]byte, 0, len(content)/4+64), magic...)
	data = append(data, make([]byte, sha256.Size)...)
	data = s.enc.EncodeAll(content, data)
	sum := sha256.Sum256(data[len(magic)+sha256.Size:])
	copy(data[len(magic):], sum[:])

	size := occupied(int64(len(data)))
	if size > s.limit {
		return false, nil
	}
	s.step(beforeTemp)
	temp, err := s.createTemp(int64(len(data)))
	if err != nil {
		return false, err
	}
	s.step(beforeReserve)
	ok, err := s.reserve(size)
	if err != nil || !ok {
		return false, errors.Join(err, temp.Close(), removeFile(temp.Name()))
	}
	s.step(beforeWrite)
	if err := s.fill(temp, data); err != nil {
		return false, errors.Join(err, removeFile(temp.Name()), s.release(size))
	}
	s.step(beforeRename)
	err = rename(temp.Name(), s.path(kind, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // cleared meanwhile, and with it perhaps the reservation
	}
	if err != nil {
		return false, errors.Join(err, removeFile(temp.Name()), s.release(size))
	}
	s.step(afterRename)
	return true, nil
}

// fill writes a temporary file and closes it.
func (s *Store) fill(temp *os.File, data []byte) error {
	half := len(data) / 2
	_, err := temp.Write(data[:half])
	if err == nil {
		s.step(halfWritten)
		_, err = temp.Write(data[half:])
	}
	if err == nil {
		err = temp.Chmod(0o644)
	}
	return errors.Join(err, temp.Close())
}

// rename moves a file into a folder that may not exist yet.
func rename(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.Rename(from, to)
}

// createTemp makes a temporary file that has its final size from the start, so
// that a count sees it before its reservation is in the usage.
func (s *Store) createTemp(size int64) (*os.File, error) {
	f, err := os.CreateTemp(s.tempDir(), "*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.tempDir(), 0o755); err != nil {
			return nil, err
		}
		f, err = os.CreateTemp(s.tempDir(), "*")
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(err, f.Close(), removeFile(f.Name()))
	}
	return f, nil
}

// removeFile removes a file that may be gone already.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// usage is an upper bound of the bytes in use, kept in the file "size": the
// number and its complement, 8 bytes each, little-endian. It is raised before
// a file is written and lowered only after one could not be, so that a process
// killed in between leaves it too large, never too small. What is replaced or
// removed does not lower it. Eviction counts anew.
type usage struct{ file *os.File }

// lockUsage opens the file and locks it; others wait for microseconds.
func (s *Store) lockUsage() (usage, error) {
	path := filepath.Join(s.dir, "size")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return usage{}, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	}
	if err != nil {
		return usage{}, err
	}
	if err := lockFile(f, unix.LOCK_EX); err != nil {
		return usage{}, errors.Join(err, f.Close())
	}
	return usage{f}, nil
}

func lockFile(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

func (u usage) get() (bytes int64, ok bool) {
	var b [16]byte
	if n, err := u.file.ReadAt(b[:], 0); err != nil || n != len(b) {
		return 0, false
	}
	v, check := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	return int64(v), v == ^check && int64(v) >= 0
}

func (u usage) set(bytes int64) error {
	var b [16]byte
	v := uint64(max(bytes, 0))
	binary.LittleEndian.PutUint64(b[:], v)
	binary.LittleEndian.PutUint64(b[8:], ^v)
	_, err := u.file.WriteAt(b[:], 0)
	return err
}

// close also unlocks.
func (u usage) close() error { return u.file.Close() }

// raise adds to the usage if the sum stays within the limit, and returns the
// usage from before.
func (s *Store) raise(by int64) (before int64, ok bool, err error) {
	u, err := s.lockUsage()
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, u.close()) }()
	before, known := u.get()
	if !known {
		if before, err = s.count(); err != nil {
			return 0, false, err
		}
	}
	if before+by > s.limit {
		if !known {
			err = u.set(before)
		}
		return before, false, err
	}
	return before, true, u.set(before + by)
}

// reserve makes room for a temporary file that exists already. ok is false if
// there is none.
func (s *Store) reserve(size int64) (ok bool, err error) {
	if _, ok, err := s.raise(size); err != nil || ok {
		return ok, err
	}
	s.evicting.Lock()
	defer s.evicting.Unlock()
	if _, ok, err := s.raise(size); err != nil || ok {
		return ok, err // another goroutine has made room
	}
	if err := s.evict(min(s.limit-s.limit/10, s.limit-size), size); err != nil {
		return false, err
	}
	_, ok, err = s.raise(size)
	return ok, err
}

// release takes back a reservation.
func (s *Store) release(size int64) error {
	u, err := s.lockUsage()
	if err != nil {
		return err
	}
	if before, ok := u.get(); ok {
		err = u.set(before - size)
	}
	return errors.Join(err, u.close())
}
