package distro

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/klpc/klpc/internal/run"
)

// debianFiles is the origin of a stock kernel's tree.
type debianFiles struct {
	*debian
	p packages
}

// settings fetches the small headers package.
func (f debianFiles) settings(ctx context.Context, tmp string) (settings, error) {
	p := f.p
	f.o.Log(fmt.Sprintf("fetching the packages of %s %s with apt-get (%d MB)", p.release, p.version, p.size/1e6))
	unpacked := filepath.Join(tmp, "headers")
	if err := f.fetchInto(ctx, p.version, []string{p.headers}, filepath.Join(tmp, "headers.debs"), unpacked); err != nil {
		return settings{}, err
	}
	dir := filepath.Join(unpacked, "usr", "src", p.headers)
	return settings{config: filepath.Join(dir, ".config"), symvers: filepath.Join(dir, "Module.symvers")}, nil
}

// provide fetches image and source at once and unpacks both into dir.
func (f debianFiles) provide(ctx context.Context, tmp, dir string) (source string, err error) {
	d, p := f.debian, f.p
	stop := d.showProgress(tmp, p.size)
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		image := filepath.Join(dir, "image")
		if err := d.fetchInto(ctx, p.version, append([]string{p.image}, p.parts...), filepath.Join(tmp, "image.debs"), image); err != nil {
			return err
		}
		_, _, err := findImage(image, p.release)
		return err
	})
	g.Go(func() error {
		packed := filepath.Join(tmp, "source")
		if err := d.fetchInto(ctx, p.version, []string{p.source}, filepath.Join(tmp, "source.debs"), packed); err != nil {
			return err
		}
		stop()
		d.o.Log("unpacking the source")
		source := filepath.Join(dir, "source")
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		// xz -T0 is not faster here: tar, not xz, takes most of the time.
		_, err := run.Do(ctx, run.Cmd{Args: []string{"tar", "-C", source, "--strip-components=1", "--no-same-owner", "-xJf",
			filepath.Join(packed, "usr", "src", p.source+".tar.xz")}, Log: d.o.Output})
		if err != nil {
			return fmt.Errorf("unpack the source: %w", err)
		}
		return nil
	})
	return "", g.Wait()
}

// fetchInto downloads packages with apt-get, which checks them against the
// archive's signature, and unpacks them.
func (d *debian) fetchInto(ctx context.Context, version string, names []string, debs, dest string) error {
	for _, dir := range []string{debs, dest} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	args := []string{"apt-get", "-q", "-o", "Acquire::Retries=3"}
	if os.Geteuid() == 0 {
		// apt's own user _apt may not write into the cache.
		args = append(args, "-o", "APT::Sandbox::User=root")
	}
	args = append(args, "download")
	for _, n := range names {
		args = append(args, n+"="+version)
	}
	env := []string{"LC_ALL=C"}
	if _, err := run.Do(ctx, run.Cmd{Dir: debs, Args: args, Env: env, Log: d.o.Output}); err != nil {
		return fmt.Errorf("fetch %s %s: %w", names[0], version, err)
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(names) {
		return fmt.Errorf("fetch %s %s: apt-get left %d packages of %d", names[0], version, len(files), len(names))
	}
	for _, f := range files {
		if _, err := run.Do(ctx, run.Cmd{Args: []string{"dpkg-deb", "-x", f, dest}, Env: env, Log: d.o.Output}); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(f), err)
		}
	}
	return os.RemoveAll(debs)
}

// showProgress logs how much was fetched, every few seconds until stop.
func (d *debian) showProgress(tmp string, total int64) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				d.o.Log(fmt.Sprintf("fetched %d of %d MB", fetched(tmp)/1e6, total/1e6))
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(quit)
		<-done
	})
}

// fetched returns how many bytes of packages lie in a directory. apt-get
// writes into a subdirectory partial first.
func fetched(tmp string) int64 {
	var sum int64
	for _, pattern := range []string{"*.debs/*", "*.debs/partial/*"} {
		files, _ := filepath.Glob(filepath.Join(tmp, pattern))
		for _, f := range files {
			if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() {
				sum += st.Size()
			}
		}
	}
	return sum
}

// findImage finds vmlinuz and the modules in an unpacked image: Debian 13
// merges /lib into /usr, and since 6.17 vmlinuz lies with the modules.
func findImage(image, release string) (vmlinuz, modules string, err error) {
	lib := []string{filepath.Join("lib", "modules", release), filepath.Join("usr", "lib", "modules", release)}
	vmlinuz = firstOf(image, filepath.Join("boot", "vmlinuz-"+release), filepath.Join(lib[0], "vmlinuz"), filepath.Join(lib[1], "vmlinuz"))
	modules = firstOf(image, filepath.Join(lib[0], "kernel"), filepath.Join(lib[1], "kernel"))
	if vmlinuz == "" || modules == "" {
		return "", "", fmt.Errorf("the image package of %s holds no vmlinuz or no modules where they are known to lie", release)
	}
	return vmlinuz, modules, nil
}

func firstOf(root string, paths ...string) string {
	for _, p := range paths {
		if _, err := os.Stat(filepath.Join(root, p)); err == nil {
			return filepath.Join(root, p)
		}
	}
	return ""
}
