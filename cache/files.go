package cache

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stamp stands for what stat says of a file: inode, size, times of modification
// and of change. Equal stamps mean that the file has not changed; 0 means that
// nothing can be told from stat.
type stamp uint64

// Times of files have a grain: a file that changes again within it keeps its
// times. Times that are no older than the grain prove nothing.
const (
	tick       = 20 * time.Millisecond // two ticks of the kernel's coarse clock (CONFIG_HZ_100)
	wholeGrain = 2 * time.Second       // FAT; also file systems that store whole seconds
)

// settled tells whether everything written after t would show in the times.
func settled(st *unix.Stat_t, t time.Time) bool {
	for _, ts := range []unix.Timespec{st.Mtim, st.Ctim} {
		grain := tick
		if ts.Nsec == 0 {
			grain = wholeGrain
		}
		if !time.Unix(ts.Unix()).Add(grain).Before(t) {
			return false
		}
	}
	return true
}

func stampOf(st *unix.Stat_t) stamp {
	var b [56]byte
	for i, v := range []uint64{st.Ino, uint64(st.Size), uint64(st.Mode), uint64(st.Mtim.Sec), uint64(st.Mtim.Nsec), uint64(st.Ctim.Sec), uint64(st.Ctim.Nsec)} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	sum := sha256.Sum256(b[:])
	return stamp(binary.LittleEndian.Uint64(sum[:]) | 1) // never 0
}

// hazard is something in a text that makes the result depend on more than the
// files that are read.
type hazard uint8

const (
	unlisted hazard = 1 << iota // reads or looks for files that no dependency file lists
	clock                       // the time of the compile
)

// hazards are words that cannot be in the text of a cached compile, even in a
// comment. Of Linux 6.12, kernel/configs.c, kernel/kheaders.c and
// security/landlock have one.
var hazards = []struct {
	word []byte
	is   hazard
}{
	{[]byte(".incbin"), unlisted},
	{[]byte("__has_include"), unlisted},
	{[]byte("__has_embed"), unlisted},
	{[]byte("#embed"), unlisted},
	{[]byte("__DATE__"), clock},
	{[]byte("__TIME__"), clock},
	{[]byte("__TIMESTAMP__"), clock},
}

// tolerated are the hazards that do not concern a command: with Kbuild's
// -Werror=date-time, a text that used the clock would not compile.
func (c Command) tolerated() hazard {
	if slices.Contains(c.Args, "-Werror=date-time") {
		return clock
	}
	return 0
}

// text is what is known of a file's content.
type text struct {
	stamp   stamp // 0: read it again
	digest  digest
	hazards hazard
	stat    unix.Stat_t // after reading
}

// listing is what is known of a directory.
type listing struct {
	stamp stamp
	names []string // sorted
	stat  unix.Stat_t
}

// files looks at files, each content once as long as its stamp stays.
type files struct {
	now func() time.Time

	mu    sync.Mutex
	texts map[string]text
	lists map[string]listing
}

func newFiles(now func() time.Time) *files {
	return &files{now: now, texts: map[string]text{}, lists: map[string]listing{}}
}

var errNotRegular = errors.New("not a regular file")

// text reads a file, or remembers it; st is what stat says of it now.
func (f *files) text(path string, st *unix.Stat_t) (text, error) {
	now := stampOf(st)
	f.mu.Lock()
	known, ok := f.texts[path]
	f.mu.Unlock()
	if ok && known.stamp == now {
		return known, nil
	}
	read, err := f.read(path)
	if err != nil {
		return text{}, err
	}
	f.mu.Lock()
	f.texts[path] = read
	f.mu.Unlock()
	return read, nil
}

func (f *files) read(path string) (text, error) {
	begin := f.now()
	file, err := os.Open(path)
	if err != nil {
		return text{}, err
	}
	defer file.Close()
	var before unix.Stat_t
	var t text
	if err := unix.Fstat(int(file.Fd()), &before); err != nil {
		return text{}, err
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return text{}, errNotRegular
	}
	content := bytes.NewBuffer(make([]byte, 0, before.Size+bytes.MinRead))
	if _, err := io.Copy(content, file); err != nil {
		return text{}, err
	}
	if err := unix.Fstat(int(file.Fd()), &t.stat); err != nil {
		return text{}, err
	}
	t.digest = sha256.Sum256(content.Bytes())
	for _, h := range hazards {
		if bytes.Contains(content.Bytes(), h.word) {
			t.hazards |= h.is
		}
	}
	if s := stampOf(&t.stat); s == stampOf(&before) && settled(&t.stat, begin) {
		t.stamp = s
	}
	return t, nil
}

// list reads a directory, or remembers it. A missing one has no names.
func (f *files) list(path string, st *unix.Stat_t) (listing, error) {
	now := stampOf(st)
	f.mu.Lock()
	known, ok := f.lists[path]
	f.mu.Unlock()
	if ok && known.stamp == now {
		return known, nil
	}
	begin := f.now()
	d, err := os.Open(path)
	if err != nil {
		return listing{}, err
	}
	defer d.Close()
	l := listing{}
	if err := unix.Fstat(int(d.Fd()), &l.stat); err != nil {
		return listing{}, err
	}
	if l.names, err = d.Readdirnames(-1); err != nil {
		return listing{}, err
	}
	slices.Sort(l.names)
	if settled(&l.stat, begin) {
		l.stamp = stampOf(&l.stat)
	}
	f.mu.Lock()
	f.lists[path] = l
	f.mu.Unlock()
	return l, nil
}

// restricted is the digest of those names that are among some.
func (l listing) restricted(to map[string]bool) digest {
	h := sha256.New()
	for _, n := range l.names {
		if to[n] {
			h.Write([]byte(n))
			h.Write([]byte{0})
		}
	}
	return digest(h.Sum(nil))
}

// nothing is the digest of a directory without any of the names.
var nothing = digest(sha256.Sum256(nil))

// components are the names that an include of one of the files could be made
// of: the parts of their names and of the searched directories' names.
func components(names, searched []string) map[string]bool {
	out := map[string]bool{}
	add := func(name string) {
		for part := range strings.SplitSeq(name, "/") {
			out[part] = true
		}
	}
	for _, n := range names {
		add(n)
	}
	for _, n := range searched {
		add(n)
	}
	return out
}

// directories returns the directories in which an include could find another
// file than it did: each directory that is searched or that holds a file that
// was read, and those of its subdirectories that the name in an include may
// lead to. Of a directory that does not exist, the nearest existing one above
// stands for it. All are named as by View.Name, sorted.
//
// Which names the includes have is not known; so each file that was read is
// taken to be included by its name relative to each searched directory above
// it.
func directories(v View, deps, searched []string) []string {
	bases := map[string]bool{}
	for _, d := range searched {
		bases[d] = true
	}
	inner := map[string]bool{"": true}
	known := map[string]bool{}
	for _, name := range deps {
		dir := parent(name)
		bases[dir] = true
		if known[dir] {
			continue
		}
		known[dir] = true
		for _, s := range searched {
			if rel, ok := relative(s, dir); ok {
				for ; rel != ""; rel = parent(rel) {
					inner[rel] = true
				}
			}
		}
	}
	out := map[string]bool{}
	for b := range bases {
		for in := range inner {
			d := join(b, in)
			if !isDir(v.path(d)) {
				if in != "" {
					continue // b, or what lies between, has no such name
				}
				for d != "" && d != "/" && !isDir(v.path(d)) {
					d = parent(d)
				}
			}
			out[d] = true
		}
	}
	sorted := make([]string, 0, len(out))
	for d := range out {
		sorted = append(sorted, d)
	}
	slices.Sort(sorted)
	return sorted
}

// parent is the directory of a name: "" for one at the top.
func parent(name string) string {
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		return name[:i]
	} else if i == 0 {
		return "/"
	}
	return ""
}

func join(dir, name string) string {
	if dir == "" || name == "" {
		return dir + name
	}
	return path.Join(dir, name)
}

// relative returns dir relative to a searched directory above it.
func relative(searched, dir string) (string, bool) {
	if searched == "" {
		return dir, !path.IsAbs(dir)
	}
	if below(searched, dir) {
		return strings.TrimPrefix(dir[len(searched):], "/"), true
	}
	return "", false
}

func isDir(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// places records the state of all that a compile read or might have read. ok
// is false if that state may not be the one that the compile saw.
func (f *files) places(c Command, deps []string, started time.Time) (out []place, ok bool) {
	all := slices.Concat(deps, c.inputs())
	for _, name := range all {
		at := c.View.path(name)
		var st unix.Stat_t
		if unix.Stat(at, &st) != nil {
			return nil, false
		}
		t, err := f.text(at, &st)
		if err != nil || t.hazards&^c.tolerated() != 0 {
			return nil, false
		}
		if !settled(&t.stat, started) && !c.View.private(at) {
			return nil, false
		}
		out = append(out, place{name: name, digest: t.digest, stamp: t.stamp})
	}
	searched := c.searched()
	among := components(all, searched)
	for _, name := range directories(c.View, all, searched) {
		at := c.View.path(name)
		var st unix.Stat_t
		if unix.Stat(at, &st) != nil {
			return nil, false
		}
		l, err := f.list(at, &st)
		if err != nil || !settled(&l.stat, started) && !c.View.private(at) {
			return nil, false
		}
		out = append(out, place{name: name + "/", digest: l.restricted(among), stamp: l.stamp})
	}
	return out, true
}
