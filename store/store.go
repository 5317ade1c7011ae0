package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Names in a store.
const (
	// DefaultRoot is where the store is, unless the configuration says otherwise.
	DefaultRoot  = "/var/lib/klpc"
	manifestName = "manifest.json"
	moduleSuffix = ".ko"
	tempSuffix   = ".new"
	sumSize      = sha256.Size // bytes
)

// ErrNotInstalled is a livepatch that the store does not hold.
var ErrNotInstalled = errors.New("not installed")

// Store is a patch store. Who changes something holds the lock.
type Store struct {
	root string
	disk disk
	now  func() time.Time
}

// Open returns the store in a folder, which need not exist yet.
func Open(root string) *Store {
	return &Store{root: root, disk: osDisk(root), now: func() time.Time { return time.Now().UTC().Truncate(time.Second) }}
}

// Root is the store's folder.
func (s *Store) Root() string { return s.root }

// LockPath is the lock of a store that does not belong to root.
func (s *Store) LockPath() string { return filepath.Join(s.root, "lock") }

// Prepare makes the store's folder, if it is not there.
func (s *Store) Prepare() error { return makeRoot(s.root) }

// Path is where a patch's module lies.
func (s *Store) Path(release string, p *Patch) string { return filepath.Join(s.root, release, p.File) }

// Releases lists the kernel releases that the store has a manifest for, sorted.
func (s *Store) Releases() ([]string, error) {
	names, err := s.disk.Names(".")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	var releases []string
	for _, n := range names {
		if _, err := s.disk.ReadFile(path.Join(n, manifestName)); err == nil || !missing(err) {
			releases = append(releases, n)
		}
	}
	return releases, nil
}

// missing tells whether there is no such file, or its folder is a file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Read returns the manifest for a kernel release; an empty one if there is none.
// It needs no lock: a manifest changes at once.
func (s *Store) Read(release string) (*Manifest, error) {
	if err := checkRelease(release); err != nil {
		return nil, err
	}
	name := path.Join(release, manifestName)
	data, err := s.disk.ReadFile(name)
	if missing(err) {
		return newManifest(release), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the store: %w", err)
	}
	m, err := decode(data, release)
	if err != nil {
		return nil, fmt.Errorf("read the store: %s is damaged, and nothing was changed: %w", filepath.Join(s.root, name), err)
	}
	return m, nil
}

// Module returns the contents of an installed module, if they are what was installed.
func (s *Store) Module(release string, p *Patch) ([]byte, error) {
	data, err := s.disk.ReadFile(path.Join(release, p.File))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p.Name, err)
	}
	if sum := Sum(data); sum != p.SHA256 {
		return nil, fmt.Errorf("%s is not what was installed: its SHA-256 is %s, not %s", s.Path(release, p), sum, p.SHA256)
	}
	return data, nil
}

// Sum is the SHA-256 of a module, hexadecimal.
func Sum(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// change applies f to a release's manifest and writes it, if that changed it.
func (s *Store) change(release string, f func(*Manifest) error) error {
	m, err := s.Read(release)
	if err != nil {
		return err
	}
	before, err := m.encode()
	if err != nil {
		return err
	}
	if err := f(m); err != nil {
		return err
	}
	after, err := m.encode()
	if err != nil || string(before) == string(after) {
		return err
	}
	if err := s.writeManifest(m, after); err != nil {
		return fmt.Errorf("write the store: %w", err)
	}
	return nil
}

func (s *Store) writeManifest(m *Manifest, data []byte) error {
	if err := s.makeFolder(m.Release); err != nil {
		return err
	}
	return replaceFile(s.disk, path.Join(m.Release, manifestName), data)
}

func (s *Store) makeFolder(release string) error {
	if err := s.disk.Mkdir(release); err != nil {
		return err
	}
	return s.disk.SyncDir(".")
}

// clean removes the files of a release that its manifest does not name: of
// livepatches that were replaced or uninstalled, or that a power cut has left.
func (s *Store) clean(release string) error {
	m, err := s.Read(release)
	if err != nil {
		return err
	}
	names, err := s.disk.Names(release)
	if err != nil {
		return fmt.Errorf("clean the store: %w", err)
	}
	var errs []error
	for _, n := range names {
		ours := strings.HasSuffix(n, tempSuffix) || strings.HasSuffix(n, moduleSuffix)
		if !ours || slices.ContainsFunc(m.Patches, func(p Patch) bool { return p.File == n }) {
			continue
		}
		if err := s.disk.Remove(path.Join(release, n)); err != nil {
			errs = append(errs, fmt.Errorf("clean the store: %w", err))
		}
	}
	return errors.Join(errs...)
}
