package verify

// The first proof: what is replaced is what was rebuilt.

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/klpc/klpc/elfdiff"
	"github.com/klpc/klpc/locate"
)

// originals compares the original of every changed function with the kernel's.
func (c *check) originals() {
	if c.v.kernel.Image == nil {
		for _, u := range c.v.units {
			if u.Object == VMLinux {
				c.lacks(Original, "the kernel's code is not known: give its vmlinuz or vmlinux with --image")
				break
			}
		}
	}
	equal := 0
	for _, u := range c.v.units {
		for _, f := range u.Diff.Functions {
			if f.Kind != elfdiff.IsChanged || !f.Orig.Traceable() || c.overridden(u, f.Orig) || u.kernel != nil && c.v.kernel.Image == nil {
				continue
			}
			err := c.original(u, f.Orig)
			if err == nil {
				equal++
				continue
			}
			c.find(Original, u.Source+": "+f.Name(), err.Error(), c.v.cause(err))
		}
	}
	c.count(Original, "functions equal to the kernel's", equal)
	c.ftrace()
}

func (c *check) original(u *unit, p *elfdiff.Piece) error {
	if known := u.proven[p]; known != nil {
		return *known
	}
	var err error
	if u.module != nil {
		err = u.module.Verify(p)
	} else {
		err = u.kernel.Verify(p)
	}
	u.proven[p] = &err
	return err
}

var compilerText = regexp.MustCompile(`\(((?:\S+-)?(?:gcc|clang)\b.*?), GNU ld|\((.*?(?:gcc|clang).*?)\) #`)

// cause guesses why a rebuilt function is not the kernel's.
func (v *Verifier) cause(err error) string {
	const same = "use the very source version, configuration and compiler of the running kernel"
	if k := v.kernel; k.Image != nil && k.Config != nil {
		banner, berr := k.Image.Text(k.Symtab, "linux_banner")
		want := strings.Trim(k.Config("CONFIG_CC_VERSION_TEXT"), `"`)
		if berr == nil && want != "" && !strings.Contains(banner, want) {
			if m := compilerText.FindStringSubmatch(banner); m != nil {
				return fmt.Sprintf("likely the compiler: the kernel was built by %s, the tree is configured for %s", m[1]+m[2], want)
			}
		}
		if berr == nil && k.Release != "" && !strings.HasPrefix(banner, "Linux version "+k.Release+" ") {
			return fmt.Sprintf("likely the source version: the image is %q, the tree is %s", firstWords(banner, 3), k.Release)
		}
	}
	var d *locate.Difference
	if !errors.As(err, &d) {
		return same
	}
	switch {
	case d.What == "constant":
		return "likely the source version: a constant or text is another one; " + same
	case d.What == "reference":
		return "likely the source version or the configuration: the code calls or uses something else; " + same
	case d.Off < 24:
		return "likely the configuration or the compiler: functions begin in another way (mitigations, tracing, IBT, frame pointers); " + same
	}
	return "likely the source version, else the configuration or the compiler; " + same
}

func firstWords(s string, n int) string {
	f := strings.Fields(s)
	return strings.Join(f[:min(n, len(f))], " ")
}
