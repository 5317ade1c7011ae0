package cache

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMain is also the program of the tests that kill: see TestKillAtEachStep.
func TestMain(m *testing.M) {
	if dir := os.Getenv("KLPC_CACHE_VICTIM"); dir != "" {
		victim(dir)
		return
	}
	os.Exit(m.Run())
}

const (
	victimLimit = 1 << 20
	victimUnits = 12
)

// victim puts results into the store of a toy until it is killed: at a step of
// its n-th write, or by its parent.
func victim(root string) {
	at := point(os.Getenv("KLPC_CACHE_KILL_AT"))
	n, err := strconv.Atoi(os.Getenv("KLPC_CACHE_KILL_WRITE"))
	if err != nil {
		panic(err)
	}
	s, err := Open(filepath.Join(root, "store"), victimLimit)
	if err != nil {
		panic(err)
	}
	s.now = ahead
	writes := 0
	s.step = func(p point) {
		if p == writeSteps[0] {
			writes++
		}
		if p == at && writes == n {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	y := &toy{root: root, store: s}
	y.cmd = Command{Kind: "object", Dir: y.at("out"), Args: []string{"gcc", "-I" + y.at("src/include"), "-c", y.at("src/kernel/fork.c")},
		View: View{Source: y.at("src"), Build: y.at("out"), At: y.at("src")}}
	for i := 0; ; i++ {
		u := i % victimUnits
		if err := s.Put(y.unit(u), toyDeps, ahead(), payload(u, 100_000+u)); err != nil {
			panic(err)
		}
		if got, _, ok, err := s.Get(y.unit(u)); err != nil || ok && !bytes.Equal(got, payload(u, 100_000+u)) {
			panic(fmt.Sprintf("unit %d: %v", u, err))
		}
	}
}

func (y *toy) victim(at point, write int) *exec.Cmd {
	y.t.Helper()
	self, err := os.Executable()
	if err != nil {
		y.t.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), "KLPC_CACHE_VICTIM="+y.root, "KLPC_CACHE_KILL_AT="+string(at), "KLPC_CACHE_KILL_WRITE="+strconv.Itoa(write))
	c.Stderr = os.Stderr
	return c
}

// checkVictims demands of the store that killed processes have left: nothing
// wrong in it, the bound kept, and that it goes on working.
func (y *toy) checkVictims() {
	y.t.Helper()
	y.cmd.Args = []string{"gcc", "-I" + y.at("src/include"), "-c", y.at("src/kernel/fork.c")}
	y.deps = toyDeps
	s := y.open(victimLimit)
	for u := range victimUnits {
		got, _, ok, err := s.Get(y.unit(u))
		if err != nil {
			y.t.Fatal(err)
		}
		if ok && !bytes.Equal(got, payload(u, 100_000+u)) {
			y.t.Fatalf("unit %d: wrong result", u)
		}
	}
	y.wantBound(s)
	for u := range victimUnits {
		want := payload(1000+u, 50_000)
		if err := s.Put(y.unit(1000+u), y.deps, ahead(), want); err != nil {
			y.t.Fatal(err)
		}
		if got, _, ok, err := s.Get(y.unit(1000 + u)); err != nil || !ok || !bytes.Equal(got, want) {
			y.t.Fatalf("unit %d put afterwards: found %v, %v", u, ok, err)
		}
	}
	y.wantBound(s)
}

// wantBound demands that what is on disk is at most what the usage says, and
// that at most the limit.
func (y *toy) wantBound(s *Store) {
	y.t.Helper()
	st, err := s.Stats()
	if err != nil {
		y.t.Fatal(err)
	}
	u, err := s.lockUsage()
	if err != nil {
		y.t.Fatal(err)
	}
	used, ok := u.get()
	if err := u.close(); err != nil {
		y.t.Fatal(err)
	}
	// A process killed between making a temporary file and reserving its
	// space leaves a file that is all hole; eviction counts it.
	holes := y.holes()
	if !ok && st.Bytes == holes {
		return // nothing has been reserved yet; the first to do so counts
	}
	if !ok || st.Bytes-holes > used || used > s.limit {
		y.t.Fatalf("%d bytes in files, %d of them holes; %d (%v) in the usage, limit %d: want these ascending", st.Bytes, holes, used, ok, s.limit)
	}
}

func (y *toy) holes() int64 {
	y.t.Helper()
	temps, err := filepath.Glob(filepath.Join(y.at("store"), "tmp", "*"))
	if err != nil {
		y.t.Fatal(err)
	}
	var sum int64
	for _, f := range temps {
		st, err := os.Stat(f)
		if err != nil {
			y.t.Fatal(err)
		}
		if st.Sys().(*syscall.Stat_t).Blocks == 0 {
			sum += occupied(st.Size())
		}
	}
	return sum
}

func TestKillAtEachStep(t *testing.T) {
	for _, at := range writeSteps {
		for _, write := range []int{1, 2, 9, 40} { // the first result, its manifest, a later one, while evicting
			t.Run(fmt.Sprintf("%s of write %d", at, write), func(t *testing.T) {
				t.Setenv("PATH", os.Getenv("PATH"))
				y := newToy(t)
				err := y.victim(at, write).Run()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("victim: %v, want it killed", err)
				}
				y.checkVictims()
			})
		}
	}
}

// TestKillAtRandom kills several processes that share a store, again and again.
func TestKillAtRandom(t *testing.T) {
	y := newToy(t)
	for range 6 {
		var wg sync.WaitGroup
		for range 3 {
			c := y.victim("", 0)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				time.Sleep(20*time.Millisecond + rand.N(60*time.Millisecond))
				_ = c.Process.Kill()
				if err := c.Wait(); err == nil || strings.Contains(err.Error(), "exit status") {
					t.Errorf("victim: %v, want it killed", err)
				}
			})
		}
		wg.Wait()
		if st, err := y.open(victimLimit).Stats(); err != nil || st.Bytes-y.holes() > victimLimit {
			t.Fatalf("%d bytes, limit %d (%v)", st.Bytes, victimLimit, err)
		}
	}
	y.checkVictims()
}

func TestParallel(t *testing.T) {
	y := newToy(t)
	const limit = 2 << 20
	stores := []*Store{y.open(limit), y.open(limit), y.open(limit)}
	var wg sync.WaitGroup
	for g := range 12 {
		s := stores[g%len(stores)]
		wg.Go(func() {
			for i := range 15 {
				u := (g*7 + i) % 30
				want := payload(u, 100_000)
				got, _, ok, err := s.Get(y.unit(u))
				if err != nil || ok && !bytes.Equal(got, want) {
					t.Errorf("unit %d: wrong result (%v)", u, err)
				}
				if ok {
					continue
				}
				if err := s.Put(y.unit(u), y.deps, ahead(), want); err != nil {
					t.Errorf("unit %d: %v", u, err)
				}
			}
		})
	}
	wg.Wait()
	y.wantBound(stores[0])
}

func TestEvictionOrder(t *testing.T) {
	y := newToy(t)
	const limit, size = 1 << 20, 100_000
	y.store = y.open(limit)
	now := ahead()
	y.store.now = func() time.Time { return now }
	// Files are born by the machine's clock.
	y.store.step = func(point) {
		temps, err := filepath.Glob(y.at("store/tmp/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range temps {
			y.age(f, now)
		}
	}
	put := func(u int) {
		if err := y.store.Put(y.unit(u), y.deps, ahead(), payload(u, size)); err != nil {
			t.Fatal(err)
		}
	}
	has := func(u int) bool {
		_, _, ok, err := y.store.Get(y.unit(u))
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	for u := range 8 {
		now = now.Add(time.Hour)
		put(u)
	}
	now = now.Add(time.Hour)
	for _, u := range []int{0, 2} { // used again
		if !has(u) {
			t.Fatalf("unit %d is missing", u)
		}
	}
	now = now.Add(time.Hour)
	for u := 8; u < 11; u++ {
		put(u)
	}
	// What is asked last must not change what is there: has only adds uses.
	var got []int
	for u := range 11 {
		if has(u) {
			got = append(got, u)
		}
	}
	if d := cmp.Diff([]int{0, 2, 4, 5, 6, 7, 8, 9, 10}, got); d != "" {
		t.Errorf("units kept (-want +got):\n%s", d)
	}
	y.wantBound(y.store)
}

func (y *toy) age(path string, to time.Time) {
	y.t.Helper()
	if err := os.Chtimes(path, to, to); err != nil {
		y.t.Fatal(err)
	}
}

func TestTouchIsThrottled(t *testing.T) {
	y := newToy(t)
	y.put(payload(1, 2000))
	file := y.storeFiles(results)[0]
	for _, test := range []struct {
		age  time.Duration
		want bool
	}{{touchAfter / 2, false}, {2 * touchAfter, true}} {
		old := ahead().Add(-test.age).Truncate(time.Second)
		y.age(file, old)
		y.wantHit(payload(1, 2000))
		st, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := !st.ModTime().Equal(old); got != test.want {
			t.Errorf("after %v: touched %v, want %v", test.age, got, test.want)
		}
	}
}

func TestBound(t *testing.T) {
	y := newToy(t)
	for _, limit := range []int64{64 << 10, 300 << 10} {
		s := y.open(limit)
		for u := range 40 {
			if err := s.Put(y.unit(u), y.deps, ahead(), payload(u, 1000+u*5000)); err != nil {
				t.Fatal(err)
			}
			y.wantBound(s)
		}
	}
	if st, err := y.open(64 << 10).Stats(); err != nil || st.Results == 0 {
		t.Errorf("nothing is left: %+v, %v", st, err)
	}
}

func TestTrim(t *testing.T) {
	y := newToy(t)
	for u := range 20 {
		if err := y.store.Put(y.unit(u), y.deps, ahead(), payload(u, 50_000)); err != nil {
			t.Fatal(err)
		}
	}
	s := y.open(400_000)
	if err := s.Trim(); err != nil {
		t.Fatal(err)
	}
	st, err := s.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if st.Bytes > 400_000 || st.Bytes < 300_000 {
		t.Errorf("%d bytes after Trim, want at most 400000 and not much less", st.Bytes)
	}
}

// TestSharedResult: two commands with one result keep it once.
func TestSharedResult(t *testing.T) {
	y := newToy(t)
	for u := range 2 {
		if err := y.store.Put(y.unit(u), y.deps, ahead(), payload(1, 2000)); err != nil {
			t.Fatal(err)
		}
	}
	st, err := y.store.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{Dir: y.at("store"), Limit: toyLimit, Bytes: 3 * grain, Commands: 2, Results: 1}
	if d := cmp.Diff(want, st); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}
}

// TestCorrupt flips each bit of each file, one at a time.
func TestCorrupt(t *testing.T) {
	for _, kind := range []string{manifests, results} {
		t.Run(kind, func(t *testing.T) {
			y := newToy(t)
			want := payload(1, smallResult+1)
			y.put(want)
			file := y.storeFiles(kind)[0]
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for i := range good {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << (i % 8)
				if err := os.WriteFile(file, bad, 0o644); err != nil {
					t.Fatal(err)
				}
				if _, _, ok, err := y.store.Get(y.cmd); ok || err != nil {
					t.Fatalf("byte %d changed: found %v, %v; want a miss", i, ok, err)
				}
				if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
					t.Fatalf("byte %d changed: the file is still there (%v)", i, err)
				}
			}
			for _, bad := range [][]byte{nil, good[:len(good)-1], good[:20], append(bytes.Clone(good), 0)} {
				if err := os.WriteFile(file, bad, 0o644); err != nil {
					t.Fatal(err)
				}
				y.wantMiss()
			}
			y.put(want)
			y.wantHit(want)
		})
	}
}

// TestMisplaced: a sound file under another one's name.
func TestMisplaced(t *testing.T) {
	y := newToy(t)
	y.put(payload(1, 2000))
	file := y.storeFiles(results)[0]
	if err := y.store.Put(y.unit(2), y.deps, ahead(), payload(2, 2000)); err != nil {
		t.Fatal(err)
	}
	for _, other := range y.storeFiles(results) {
		if other != file {
			if err := os.Rename(other, file); err != nil {
				t.Fatal(err)
			}
		}
	}
	y.wantMiss()
}

func TestDamagedUsage(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "short": "abc", "zeros": strings.Repeat("\x00", 16), "text": strings.Repeat("x", 16)} {
		t.Run(name, func(t *testing.T) {
			y := newToy(t)
			y.put(payload(1, 50_000))
			y.write("store/size", content)
			y.put(payload(2, 50_000))
			y.wantBound(y.store)
			y.wantHit(payload(2, 50_000))
		})
	}
}

func TestAbandonedTemporaries(t *testing.T) {
	y := newToy(t)
	y.write("store/tmp/old", "half written")
	y.write("store/tmp/new", "being written")
	y.age(y.at("store/tmp/old"), ahead().Add(-abandoned-time.Minute))
	y.put(payload(1, 2000))
	var got []string
	left, err := os.ReadDir(y.at("store/tmp"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		got = append(got, e.Name())
	}
	if d := cmp.Diff([]string{"new"}, got); d != "" {
		t.Errorf("temporary files (-want +got):\n%s", d)
	}
}

func TestClear(t *testing.T) {
	y := newToy(t)
	if err := y.store.Clear(); err != nil {
		t.Fatalf("a store that was never used: %v", err)
	}
	y.put(payload(1, 2000))
	y.write("store/tmp/left", "half written")
	if err := y.store.Clear(); err != nil {
		t.Fatal(err)
	}
	st, err := y.store.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(Stats{Dir: y.at("store"), Limit: toyLimit}, st); d != "" {
		t.Errorf("stats (-want +got):\n%s", d)
	}
	y.wantMiss()
	y.put(payload(1, 2000))
	y.wantHit(payload(1, 2000))
	y.wantBound(y.store)
}

// TestClearWhileWriting clears at each step of a write.
func TestClearWhileWriting(t *testing.T) {
	for _, at := range writeSteps {
		t.Run(string(at), func(t *testing.T) {
			y := newToy(t)
			other := y.open(toyLimit)
			done := false
			y.store.step = func(p point) {
				if p == at && !done {
					done = true
					if err := other.Clear(); err != nil {
						t.Error(err)
					}
				}
			}
			y.put(payload(1, 2000))
			y.wantBound(other)
			y.put(payload(1, 2000))
			y.wantHit(payload(1, 2000))
		})
	}
}
