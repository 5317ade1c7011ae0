package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/klpc/klpc/cache"
	"github.com/klpc/klpc/kbuild"
)

// DefaultCacheSize bounds the cache of compile results, in bytes.
const DefaultCacheSize = 5 << 30

// CompileCacheDir is the folder of the cache of compile results in klpc's cache
// folder.
func CompileCacheDir(dir string) string { return filepath.Join(dir, "compile") }

// compileCache runs the compiler of a tree only if the result is not known yet.
// Nothing that is wrong with the cache is an error: then the compiler runs. It
// may be used in parallel.
type compileCache struct {
	tree  *kbuild.Tree
	store *cache.Store // nil: no cache
	keep  bool         // leave the job's output, as the compiler would
	note  func(string)

	noted    atomic.Bool
	readOnly atomic.Bool // storing has failed
	found    atomic.Int64
	compiled atomic.Int64
}

// newCompileCache opens the cache of at most limit bytes in klpc's cache folder
// dir. Without a folder, or with the limit 0, there is none.
func newCompileCache(k *Kernel, dir string, limit int64, keep bool, note func(string)) *compileCache {
	c := &compileCache{tree: k.Tree, keep: keep, note: note}
	if dir == "" || limit <= 0 {
		return c
	}
	var err error
	if c.store, err = k.openStore(CompileCacheDir(dir), limit); err != nil {
		c.failed(err)
	}
	return c
}

// openStore opens a cache, or returns the one that an earlier build has opened:
// it knows the files that it has seen already.
func (k *Kernel) openStore(dir string, limit int64) (*cache.Store, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	at := storeAt{dir, limit}
	if s := k.stores[at]; s != nil {
		return s, nil
	}
	s, err := cache.Open(dir, limit)
	if err != nil {
		return nil, err
	}
	if k.stores == nil {
		k.stores = map[storeAt]*cache.Store{}
	}
	k.stores[at] = s
	return s, nil
}

// failed says once that the cache does not work.
func (c *compileCache) failed(err error) {
	if c.noted.CompareAndSwap(false, true) {
		c.note(fmt.Sprintf("compile results are not cached: %v", err))
	}
}

// object is the object of a job, from the cache or by Tree.Compile, and the
// files that were read for it.
func (c *compileCache) object(ctx context.Context, job kbuild.CompileJob) (data []byte, deps []string, err error) {
	cmd := c.command("object", job)
	if data, deps, ok := c.get(cmd); ok {
		if c.keep {
			err = os.WriteFile(job.Out, data, 0o644)
		}
		return data, deps, err
	}
	started := time.Now()
	res, err := c.tree.Compile(ctx, job)
	if err != nil {
		return nil, nil, err
	}
	if data, err = os.ReadFile(res.Object); err != nil {
		return nil, nil, err
	}
	c.put(cmd, res.Deps, started, data)
	return data, res.Deps, nil
}

// text is the preprocessed text of a job, from the cache or by Tree.Preprocess.
func (c *compileCache) text(ctx context.Context, job kbuild.CompileJob) ([]byte, error) {
	cmd := c.command("text", job)
	if data, _, ok := c.get(cmd); ok {
		return data, nil
	}
	started := time.Now()
	res, err := c.tree.Preprocess(ctx, job)
	if err != nil {
		return nil, err
	}
	c.put(cmd, res.Deps, started, res.Text)
	return res.Text, nil
}

// symbolVersions are the versions of the symbols that a job's unit exports, from
// the cache or by Tree.CRCs.
func (c *compileCache) symbolVersions(ctx context.Context, job kbuild.CompileJob) (map[string]uint32, error) {
	cmd := c.command("symbol versions", job)
	cmd.Inputs = []string{cmd.View.Name(filepath.Join(c.tree.Build, kbuild.Genksyms))}
	if data, _, ok := c.get(cmd); ok {
		var crcs map[string]uint32
		if err := json.Unmarshal(data, &crcs); err == nil {
			return crcs, nil
		}
	}
	started := time.Now()
	crcs, read, err := c.tree.CRCs(ctx, job)
	if err != nil || len(crcs) == 0 {
		return crcs, err
	}
	data, err := json.Marshal(crcs)
	if err != nil {
		return nil, err
	}
	c.put(cmd, read, started, data)
	return crcs, nil
}

// command describes a job to the cache.
func (c *compileCache) command(kind string, job kbuild.CompileJob) cache.Command {
	at := c.tree.Source
	if job.Shadow != nil {
		at = job.Shadow.Dir()
	}
	return cache.Command{
		Kind: kind, Args: slices.Concat(job.Unit.Args, job.Extra), Launcher: job.Launcher, Env: c.tree.Env, Dir: c.tree.Build,
		View: cache.View{Source: c.tree.Source, Build: c.tree.Build, At: at},
	}
}

func (c *compileCache) get(cmd cache.Command) (data []byte, deps []string, ok bool) {
	if c.store != nil {
		data, deps, ok, err := c.store.Get(cmd)
		if err != nil {
			c.failed(err)
		}
		if ok {
			c.found.Add(1)
			return data, deps, true
		}
	}
	c.compiled.Add(1)
	return nil, nil, false
}

func (c *compileCache) put(cmd cache.Command, deps []string, started time.Time, data []byte) {
	if c.store == nil || c.readOnly.Load() {
		return
	}
	if err := c.store.Put(cmd, deps, started, data); err != nil {
		c.readOnly.Store(true)
		c.failed(err)
	}
}
