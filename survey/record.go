package survey

// What is known of a patch from an earlier run.
//
// Each patch that ends leaves a record, DIR/.survey/NAME.json, which is written
// as a whole or not at all. It holds the result and two keys: one of all that the
// build depended on, one of the test. A record is used again if the key of
// the build is the same and the module is still the one that it names; its test
// is, if the other key is the same too. Results that say nothing of the patch
// (internal errors) are not kept: the next run tries again.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"

	"github.com/klpc/klpc/diff"
	"github.com/klpc/klpc/pipeline"
)

const (
	recordDir = ".survey"
	moduleDir = "modules"
	logDir    = "logs"
	atlasJSON = "atlas.json"
	atlasHTML = "atlas.html"
)

// record is the file's content.
type record struct {
	Key     string `json:"key"`      // of the build
	TestKey string `json:"test_key"` // of the test; empty: not tested
	Result  Result `json:"result"`
}

// folder is where a survey keeps its results. Its methods may be called in
// parallel for different names.
type folder struct {
	path string
	lock *os.File
}

// openFolder makes the folder and takes its lock, which goes with the process.
func openFolder(path string, restart bool) (*folder, error) {
	for _, d := range []string{recordDir, moduleDir, logDir} {
		if err := os.MkdirAll(filepath.Join(path, d), 0o755); err != nil {
			return nil, fmt.Errorf("make the atlas folder: %w", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(path, recordDir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make the atlas folder: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s is in use by another survey: name another folder with -o, or wait", path)
	}
	f := &folder{path: path, lock: lock}
	if restart {
		err = f.keepOnly(nil)
	}
	return f, errors.Join(err, f.removeUnfinished())
}

func (f *folder) close() error { return f.lock.Close() }

// file is a path in the folder, which the atlas names with slashes.
func (f *folder) file(rel string) string { return filepath.Join(f.path, filepath.FromSlash(rel)) }

func (f *folder) recordFile(name string) string {
	return filepath.Join(f.path, recordDir, name+".json")
}

// load returns the record of a module name; nil if there is none that can be used.
func (f *folder) load(name string) *record {
	data, err := os.ReadFile(f.recordFile(name))
	if err != nil {
		return nil
	}
	var r record
	if json.Unmarshal(data, &r) != nil {
		return nil
	}
	if r.Result.Module != "" {
		ko, err := os.ReadFile(f.file(r.Result.Module))
		if err != nil || digest(ko) != r.Result.ModuleSHA256 {
			return nil
		}
	}
	if r.Result.Log != "" && !isFile(f.file(r.Result.Log)) {
		return nil
	}
	return &r
}

// save writes a record.
func (f *folder) save(name string, r *record) error {
	if r.Result.Verdict == InternalError {
		return nil
	}
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(f.recordFile(name), data, 0o644); err != nil {
		return fmt.Errorf("record the result: %w", err)
	}
	return nil
}

// forget removes what an earlier run has left of a module name.
func (f *folder) forget(name string) error {
	var errs []error
	for _, path := range []string{f.recordFile(name), f.file(modulePath(name)), f.file(logPath(name))} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// keepOnly forgets all patches but those named: the folder holds one survey.
func (f *folder) keepOnly(names map[string]bool) error {
	entries, err := os.ReadDir(filepath.Join(f.path, recordDir))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok && !names[name] {
			errs = append(errs, f.forget(name))
		}
	}
	return errors.Join(errs...)
}

// removeUnfinished removes the temporary files of a run that was killed; their
// names begin with a dot (renameio).
func (f *folder) removeUnfinished() error {
	var errs []error
	for _, d := range []string{recordDir, moduleDir, logDir, "."} {
		for _, base := range []string{modulePrefix, "atlas."} {
			files, err := filepath.Glob(filepath.Join(f.path, d, "."+base+"*"))
			errs = append(errs, err)
			for _, name := range files {
				errs = append(errs, os.Remove(name))
			}
		}
	}
	return errors.Join(errs...)
}

func modulePath(name string) string { return moduleDir + "/" + name + ".ko" }
func logPath(name string) string    { return logDir + "/" + name + ".log" }

// kernelID stands for all of the kernel that results depend on: its tree and
// configuration, its image, its exports, its modules.
func kernelID(k *pipeline.Kernel) (string, error) {
	parts := []string{k.Release, k.Tree.Source, k.Tree.Build, strings.Join(k.Tree.MakeArgs, "\n")}
	for _, name := range []string{k.ImagePath, k.Symvers, filepath.Join(k.Tree.Build, ".config")} {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		parts = append(parts, digest(data))
	}
	stamps, err := moduleStamps(k.Modules)
	return digest([]byte(strings.Join(append(parts, stamps), "\x00"))), err
}

// moduleStamps tells the module files of a folder from rebuilt ones, by their
// sizes and times.
func moduleStamps(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(d.Name(), ".ko") {
			return err
		}
		st, err := d.Info()
		if err == nil {
			fmt.Fprintf(&b, "%s %d %d\n", path, st.Size(), st.ModTime().UnixNano())
		}
		return err
	})
	return b.String(), err
}

// buildKey stands for all that the build of a patch depends on. originals are
// the files of the tree that the patch touches: a tree can be edited without
// being built again.
func (s *survey) buildKey(patch []byte, name string, originals []string) (string, error) {
	parts := []string{s.o.Digest, s.kernel, digest(patch), name,
		fmt.Sprint(s.o.Build.Fuzz, s.o.Build.NoReplace), fmt.Sprintf("%q", s.o.Build.AllowLayout)}
	for _, file := range originals {
		data, err := os.ReadFile(filepath.Join(s.o.Kernel.Tree.Source, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTDIR) {
			return "", err
		}
		parts = append(parts, file, digest(data))
	}
	return digest([]byte(strings.Join(parts, "\x00"))), nil
}

// parsePatch lists the files that a patch touches and the subjects of its mails;
// none if it cannot be parsed, which the build will say.
func parsePatch(name string, patch []byte) (files, titles []string) {
	files = []string{}
	patches, err := diff.ParseSeries(name, patch)
	if err != nil {
		return files, nil
	}
	for _, p := range patches {
		if p.Title != "" {
			titles = append(titles, p.Title)
		}
		for _, f := range p.Files {
			for _, path := range []string{f.Old, f.New} {
				if path != "" {
					files = append(files, path)
				}
			}
		}
	}
	slices.Sort(files)
	return slices.Compact(files), titles
}
