package distro

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// TestNet fetches and prepares the newest stock cloud kernel, or the release
// in KLPC_TEST_RELEASE, and uses it a second time.
func TestNet(t *testing.T) {
	if os.Getenv("KLPC_TEST_NET") != "1" {
		t.Skip("KLPC_TEST_NET=1 is not set: fetches 190 MB from apt's archives and needs a minute")
	}
	cache := os.Getenv("KLPC_TEST_CACHE")
	if cache == "" {
		cache = t.TempDir()
	}
	var out bytes.Buffer
	start := time.Now()
	o := Options{Cache: cache, Output: &out, Log: func(s string) { t.Logf("%5.1f s  %s", time.Since(start).Seconds(), s) }}
	tree, err := Debian(t.Context(), os.Getenv("KLPC_TEST_RELEASE"), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Logf("%5.1f s  ready: %+v", time.Since(start).Seconds(), *tree)
	cmds, err := tree.OpenCommands()
	if err != nil {
		t.Fatal(err)
	}
	defer cmds.Close()
	found := false
	sc := bufio.NewScanner(cmds)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		found = found || strings.Contains(sc.Text(), " -c -o fs/proc/cmdline.o "+tree.Source+"/fs/proc/cmdline.c")
	}
	if err := sc.Err(); err != nil || !found {
		t.Errorf("no compile command for fs/proc/cmdline.o (%v)", err)
	}
	start = time.Now()
	again, err := Debian(t.Context(), tree.Release, o)
	if err != nil || again.Build != tree.Build {
		t.Fatalf("second time: %v, %+v", err, again)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("a prepared tree was found after %v", took)
	}
}
