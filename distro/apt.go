package distro

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/klpc/klpc/internal/run"
)

// packages is a complete set of packages of one kernel, all of one version:
// only so is the source the source of the image.
type packages struct {
	release string
	version string
	image   string   // linux-image-RELEASE, or its -unsigned form
	headers string   // linux-headers-RELEASE: .config and Module.symvers
	source  string   // linux-source-X.Y
	parts   []string // since 6.17 the image is split: linux-binary-, linux-modules-, linux-base-RELEASE
	size    int64    // bytes to fetch for image, headers and source
}

// offer is a package in a version that apt can fetch.
type offer struct{ name, version string }

// record is one paragraph of "apt-cache show".
type record struct {
	name, version, depends string
	size                   int64 // bytes
}

// releasePattern is X.Y.Z, an ABI number or +debN, and a flavour: what Debian
// calls a release. Meta packages, such as linux-image-6.12-cloud-amd64, name
// no Z. The last submatch is the flavour.
var releasePattern = regexp.MustCompile(`^([0-9]+\.[0-9]+)\.[0-9]+[0-9a-z.+~-]*?-((?:cloud-|rt-)?amd64)$`)

// cloud is the flavour for virtual machines.
const cloud = "cloud-amd64"

func checkRelease(release string) error {
	if !releasePattern.MatchString(release) {
		return fmt.Errorf("%q is no release of a Debian kernel for amd64, such as 6.12.107+deb12-cloud-amd64", release)
	}
	return nil
}

// flavour returns a release's flavour, "" if it is no release.
func flavour(release string) string {
	if m := releasePattern.FindStringSubmatch(release); m != nil {
		return m[2]
	}
	return ""
}

func imageNames(release string) []string {
	return []string{"linux-image-" + release, "linux-image-" + release + "-unsigned"}
}

func headersName(release string) string { return "linux-headers-" + release }

func sourceName(release string) string {
	return "linux-source-" + releasePattern.FindStringSubmatch(release)[1]
}

// parseNames returns the releases of one flavour among the lines of
// "apt-cache pkgnames linux-image-", sorted.
func parseNames(out, flav string) []string {
	var releases []string
	for line := range strings.Lines(out) {
		name := strings.TrimSuffix(strings.TrimSpace(line), "-unsigned")
		r, ok := strings.CutPrefix(name, "linux-image-")
		if ok && flavour(r) == flav {
			releases = append(releases, r)
		}
	}
	slices.Sort(releases)
	return slices.Compact(releases)
}

// parseMadison reads "apt-cache madison": lines of "name | version | where".
// Source packages, "… Sources", are no offers.
func parseMadison(out string) []offer {
	var offers []offer
	for line := range strings.Lines(out) {
		f := strings.Split(line, "|")
		if len(f) != 3 || !strings.HasSuffix(strings.TrimSpace(f[2]), "Packages") {
			continue
		}
		o := offer{name: strings.TrimSpace(f[0]), version: strings.TrimSpace(f[1])}
		if !slices.Contains(offers, o) {
			offers = append(offers, o)
		}
	}
	return offers
}

// parseShow reads "apt-cache show": paragraphs of "Field: value".
func parseShow(out string) []record {
	var records []record
	for _, para := range strings.Split(out, "\n\n") {
		var r record
		for line := range strings.Lines(para) {
			field, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch field {
			case "Package":
				r.name = value
			case "Version":
				r.version = value
			case "Depends":
				r.depends = value
			case "Size":
				r.size, _ = strconv.ParseInt(value, 10, 64) // only shown to the user
			}
		}
		if r.name != "" {
			records = append(records, r)
		}
	}
	return records
}

// imageParts returns the packages that hold the contents of an image package
// which is itself empty, from its Depends.
func imageParts(depends, release string) []string {
	var parts []string
	for _, d := range strings.Split(depends, ",") {
		name, _, _ := strings.Cut(strings.TrimSpace(d), " ")
		switch strings.TrimSuffix(name, "-unsigned") {
		case "linux-base-" + release, "linux-binary-" + release, "linux-modules-" + release:
			parts = append(parts, name)
		}
	}
	slices.Sort(parts)
	return parts
}

// versionsOf returns the versions of a package on offer, newest first.
func versionsOf(offers []offer, name string) []string {
	var vs []string
	for _, o := range offers {
		if o.name == name {
			vs = append(vs, o.version)
		}
	}
	slices.SortFunc(vs, func(a, b string) int { return CompareVersions(b, a) })
	return vs
}

// complete returns the newest set of packages of a release of which image,
// headers and source are on offer in one version; a signed image is preferred,
// though the two hold the same kernel.
func complete(offers []offer, release string) (packages, bool) {
	p := packages{release: release, headers: headersName(release), source: sourceName(release)}
	headers, sources := versionsOf(offers, p.headers), versionsOf(offers, p.source)
	for _, image := range imageNames(release) {
		for _, v := range versionsOf(offers, image) {
			if CompareVersions(v, p.version) > 0 && slices.Contains(headers, v) && slices.Contains(sources, v) {
				p.image, p.version = image, v
			}
		}
	}
	return p, p.version != ""
}

// newest returns the complete sets among releases, newest first, backports
// last: apt installs none of those unless told to.
func newest(offers []offer, releases []string) []packages {
	var all []packages
	for _, r := range releases {
		if p, ok := complete(offers, r); ok {
			all = append(all, p)
		}
	}
	backport := func(p packages) int { return min(1, strings.Count(p.version, "~bpo")) }
	slices.SortStableFunc(all, func(a, b packages) int {
		if c := backport(a) - backport(b); c != 0 {
			return c
		}
		return CompareVersions(b.version, a.version)
	})
	return all
}

// notOffered is a kernel that apt cannot fetch, or not all of it.
type notOffered struct {
	release string // "": any cloud kernel
	offers  []offer
	others  []packages // complete sets of the same flavour, newest first
}

func (e *notOffered) Error() string {
	var b strings.Builder
	switch {
	case e.release == "":
		b.WriteString("apt offers no linux-image-*-" + cloud + " with headers and source of the same version")
	default:
		searched := append(imageNames(e.release), headersName(e.release), sourceName(e.release))
		fmt.Fprintf(&b, "apt does not offer all of %s in one version:", e.release)
		for _, name := range searched {
			have := "none"
			if vs := versionsOf(e.offers, name); len(vs) > 0 {
				have = strings.Join(vs, ", ")
			}
			fmt.Fprintf(&b, "\n  %s: %s", name, have)
		}
	}
	for i, p := range e.others {
		if i == 0 {
			b.WriteString("\nthe newest that it offers:")
		}
		if i == 5 {
			break
		}
		fmt.Fprintf(&b, "\n  %s (%s)", p.release, p.version)
	}
	b.WriteString("\nif its package lists are old or missing, as root: apt-get update")
	return b.String()
}

// find asks apt for the packages of a release, "" for the newest cloud kernel.
func (d *debian) find(ctx context.Context, release string) (packages, error) {
	var offers []offer
	var err error
	p, ok := packages{}, false
	if release != "" {
		if offers, err = d.madison(ctx, []string{release}); err != nil {
			return packages{}, err
		}
		p, ok = complete(offers, release)
	}
	if !ok {
		flav := cloud
		if release != "" {
			flav = flavour(release)
		}
		others, err := d.offered(ctx, flav)
		if err != nil {
			return packages{}, err
		}
		if release != "" || len(others) == 0 {
			return packages{}, &notOffered{release: release, offers: offers, others: others}
		}
		p = others[0]
	}
	out, err := d.aptCache(ctx, "show", p.image+"="+p.version, p.headers+"="+p.version, p.source+"="+p.version)
	if err != nil {
		return packages{}, err
	}
	for _, r := range parseShow(out) {
		p.size += r.size
		if r.name == p.image {
			p.parts = imageParts(r.depends, p.release)
		}
	}
	return p, nil
}

// offered returns the complete kernels of a flavour, newest first.
func (d *debian) offered(ctx context.Context, flav string) ([]packages, error) {
	out, err := d.aptCache(ctx, "pkgnames", "linux-image-")
	if err != nil {
		return nil, err
	}
	releases := parseNames(out, flav)
	if len(releases) == 0 {
		return nil, nil
	}
	offers, err := d.madison(ctx, releases)
	if err != nil {
		return nil, err
	}
	return newest(offers, releases), nil
}

// madison asks for all packages that belong to the releases.
func (d *debian) madison(ctx context.Context, releases []string) ([]offer, error) {
	var names []string
	for _, r := range releases {
		names = append(names, imageNames(r)...)
		names = append(names, headersName(r), sourceName(r))
	}
	slices.Sort(names)
	out, err := d.aptCache(ctx, append([]string{"madison"}, slices.Compact(names)...)...)
	if err != nil {
		return nil, err
	}
	return parseMadison(out), nil
}

func (d *debian) aptCache(ctx context.Context, args ...string) (string, error) {
	res, err := run.Do(ctx, run.Cmd{Args: append([]string{"apt-cache"}, args...), Env: []string{"LC_ALL=C"}})
	if err != nil {
		return "", fmt.Errorf("ask apt for kernels: %w", err)
	}
	return string(res.Stdout), nil
}
