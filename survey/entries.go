package survey

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/klpc/klpc/internal/modname"
	"github.com/klpc/klpc/pipeline"
)

// Entry is one patch to try.
type Entry struct {
	Name string // unique in a survey
	Path string
	// CVEs and Titles are what an index beside the patch says of it.
	CVEs, Titles []string
}

// indexName is the file beside patches that says what they fix.
const indexName = "index.json"

// Find returns the patches that arguments name: a patch is itself; a series file
// stands for the patches that it lists, in order; a folder for those of its file
// "series", or else for all its *.patch and *.diff files by name.
func Find(args []string) ([]Entry, error) {
	var all []Entry
	var errs []error
	for _, arg := range args {
		found, err := find(arg)
		all = append(all, found...)
		errs = append(errs, err)
	}
	seen := map[string]bool{}
	all = slices.DeleteFunc(all, func(e Entry) bool { // the same file twice
		twice := seen[e.Path]
		seen[e.Path] = true
		return twice
	})
	for i := range all {
		if st, err := os.Stat(all[i].Path); err != nil {
			errs = append(errs, err)
		} else if !st.Mode().IsRegular() {
			errs = append(errs, fmt.Errorf("%s: not a regular file", all[i].Path))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	makeUnique(all)
	return all, readIndexes(all)
}

func find(arg string) ([]Entry, error) {
	st, err := os.Stat(arg)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		if series, err := isSeries(arg); err != nil || !series {
			return []Entry{{Name: filepath.Base(arg), Path: filepath.Clean(arg)}}, err
		}
		return seriesEntries(arg)
	}
	if series := filepath.Join(arg, "series"); isFile(series) {
		return seriesEntries(series)
	}
	files, err := os.ReadDir(arg)
	if err != nil {
		return nil, err
	}
	var found []Entry
	for _, f := range files {
		if ext := filepath.Ext(f.Name()); (ext == ".patch" || ext == ".diff") && !f.IsDir() {
			found = append(found, Entry{Name: f.Name(), Path: filepath.Join(arg, f.Name())})
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no *.patch, no *.diff and no series file", arg)
	}
	return found, nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func seriesEntries(name string) ([]Entry, error) {
	files, err := pipeline.SeriesFiles(name)
	var found []Entry
	for _, f := range files {
		rel, relErr := filepath.Rel(filepath.Dir(name), f)
		if relErr != nil {
			return nil, relErr
		}
		found = append(found, Entry{Name: filepath.ToSlash(rel), Path: f})
	}
	return found, err
}

// isSeries tells a list of patches from a patch: its first line that is neither
// blank nor a comment names a file beside it.
func isSeries(name string) (bool, error) {
	switch filepath.Ext(name) {
	case ".patch", ".diff":
		return false, nil
	}
	if filepath.Base(name) == "series" {
		return true, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if words := strings.Fields(line); len(words) > 0 {
			return filepath.IsLocal(words[0]) && isFile(filepath.Join(filepath.Dir(name), words[0])), nil
		}
	}
	return false, nil // a line that is too long is no file's name
}

// makeUnique gives entries that have the same name their paths as names.
func makeUnique(all []Entry) {
	count := map[string]int{}
	for _, e := range all {
		count[e.Name]++
	}
	for i, e := range all {
		if count[e.Name] > 1 {
			all[i].Name = filepath.ToSlash(e.Path)
		}
	}
}

// readIndexes takes CVEs and titles from an index.json in the folder of each
// patch: a list of objects with the keys patch, cves and titles. A file of that
// name that is something else is not ours and is passed over.
func readIndexes(all []Entry) error {
	type about struct {
		Patch  string   `json:"patch"`
		CVEs   []string `json:"cves"`
		Titles []string `json:"titles"`
	}
	known := map[string]map[string]about{} // folder → file → what it says
	for i, e := range all {
		dir, base := filepath.Split(e.Path)
		if _, ok := known[dir]; !ok {
			known[dir] = map[string]about{}
			data, err := os.ReadFile(filepath.Join(dir, indexName))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			var list []about
			if json.Unmarshal(data, &list) == nil {
				for _, a := range list {
					known[dir][a.Patch] = a
				}
			}
		}
		a := known[dir][base]
		all[i].CVEs, all[i].Titles = a.CVEs, a.Titles
	}
	return nil
}

// maxModuleName is MODULE_NAME_LEN without the NUL, in bytes.
const maxModuleName = 55

const modulePrefix = "livepatch-"

var notInModuleName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// moduleNames gives each entry's module a name of its own. The kernel takes '-'
// for '_', and a long name is cut: names that would be equal then end in a
// digest of the entry's name.
func moduleNames(all []Entry) []string {
	plain := func(name string, limit int) string {
		stem := strings.TrimPrefix(strings.TrimSuffix(filepath.Base(name), filepath.Ext(name)), modulePrefix)
		stem = strings.Trim(notInModuleName.ReplaceAllString(stem, "-"), "-")
		if stem == "" {
			stem = "patch"
		}
		return modulePrefix + stem[:min(len(stem), limit-len(modulePrefix))]
	}
	count := map[string]int{}
	for _, e := range all {
		count[modname.Canonical(plain(e.Name, maxModuleName))]++
	}
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = plain(e.Name, maxModuleName)
		if count[modname.Canonical(names[i])] > 1 {
			const digits = 8
			names[i] = plain(e.Name, maxModuleName-digits-1) + "-" + digest([]byte(e.Name))[:digits]
		}
	}
	return names
}

// digest is the SHA-256 of data in hexadecimal.
func digest(data ...[]byte) string {
	sum := sha256.Sum256(bytes.Join(data, nil))
	return hex.EncodeToString(sum[:])
}
