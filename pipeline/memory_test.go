package pipeline

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestJobsFor(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, test := range []struct {
		name      string
		jobs      int
		available int64
		want      int
	}{
		{"plenty", 16, 64 * gib, 16},
		{"no limit is known", 16, math.MaxInt64, 16},
		{"just enough for all", 4, spareMemory + 4*400*mib, 4},
		{"a byte too little for the fourth", 4, spareMemory + 4*400*mib - 1, 3},
		{"two gigabytes", 8, 2 * gib, 4},
		{"one always runs", 8, 100 * mib, 1},
		{"nothing left", 8, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := jobsFor(test.jobs, test.available, 400*mib); got != test.want {
				t.Errorf("%d jobs, want %d", got, test.want)
			}
		})
	}
}

func TestAvailableMemory(t *testing.T) {
	const mib = 1 << 20
	meminfo := "MemTotal:       24000000 kB\nMemFree:          100000 kB\nMemAvailable:   8388608 kB\n"
	for _, test := range []struct {
		name   string
		files  map[string]string
		limits []uint64
		want   int64
	}{
		{"of the machine", map[string]string{"proc/meminfo": meminfo}, []uint64{math.MaxUint64}, 8192 * mib},
		{"nothing can be read", nil, nil, math.MaxInt64},
		{"limit of the process", map[string]string{"proc/meminfo": meminfo}, []uint64{math.MaxUint64, 1 << 30}, 1024 * mib},
		{"control group", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "2147483648\n", "sys/fs/cgroup/a/b/memory.current": "1073741824\n",
			"sys/fs/cgroup/a/b/memory.stat": "anon 12345\ninactive_file 536870912\nactive_file 77\n",
		}, nil, 1536 * mib},
		{"control group without a limit, in one with a limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "1073741824\n",
			"sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/memory.current": "268435456\n",
		}, nil, 768 * mib},
		{"throttled before the limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n",
			"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.high": "1073741824\n", "sys/fs/cgroup/a/memory.current": "0\n",
		}, nil, 1024 * mib},
		{"control group that is full", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "1073741824\n", "sys/fs/cgroup/memory.current": "1073745920\n",
		}, nil, 0},
		{"control group of version 1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "12:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "1073741824\n", "sys/fs/cgroup/memory/docker/1/memory.usage_in_bytes": "536870912\n",
			"sys/fs/cgroup/memory/docker/1/memory.stat": "inactive_file 1\ntotal_inactive_file 268435456\n",
		}, nil, 768 * mib},
		{"control group that this process cannot see", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../..\n",
		}, nil, 8192 * mib},
	} {
		t.Run(test.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, text := range test.files {
				root[name] = &fstest.MapFile{Data: []byte(text)}
			}
			if diff := cmp.Diff(test.want, availableMemory(root, test.limits...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestGate: jobs that take memory as they begin never take more than there is.
func TestGate(t *testing.T) {
	const each = 100 << 20
	for _, test := range []struct {
		name   string
		jobs   int
		memory int64 // for jobs
		most   int   // that may run at once
		waited bool
	}{
		{"enough", 4, 16 * each, 4, false},
		{"for two", 8, 2 * each, 2, true},
		{"for none", 8, 0, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var taken, running, peak atomic.Int64
			g := newGate(test.jobs, each, func() int64 { return spareMemory + test.memory - taken.Load() })
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					leave := g.enter()
					defer leave()
					taken.Add(each)
					n := running.Add(1)
					for p := peak.Load(); n > p && !peak.CompareAndSwap(p, n); p = peak.Load() {
					}
					time.Sleep(time.Millisecond)
					running.Add(-1)
					taken.Add(-each)
				})
			}
			wg.Wait()
			if peak.Load() > int64(test.most) || g.running != 0 {
				t.Errorf("%d ran at once, want at most %d; %d are left", peak.Load(), test.most, g.running)
			}
			if test.waited && !g.waited {
				t.Error("nothing is said of jobs that waited")
			}
		})
	}
}
