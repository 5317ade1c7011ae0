package distro

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readTestdata(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestParseNames(t *testing.T) {
	out := readTestdata(t, "pkgnames.txt") + "linux-image-6.16.12+deb14-cloud-amd64-unsigned\nlinux-image-6.1.0-9-cloud-arm64\nlinux-image-cloud-amd64\n"
	tests := map[string][]string{
		"cloud-amd64": {
			"6.1.0-47-cloud-amd64", "6.1.0-48-cloud-amd64", "6.12.115+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64",
			"6.16.12+deb14-cloud-amd64",
		},
		"amd64":    {"6.1.0-47-amd64", "6.1.0-48-amd64", "6.12.115+deb12-amd64", "6.12.117+deb12-amd64"},
		"rt-amd64": {"6.1.0-47-rt-amd64", "6.1.0-48-rt-amd64", "6.12.115+deb12-rt-amd64", "6.12.117+deb12-rt-amd64"},
	}
	for flav, want := range tests {
		if diff := cmp.Diff(want, parseNames(out, flav)); diff != "" {
			t.Errorf("%s: %s", flav, diff)
		}
	}
}

func TestCheckRelease(t *testing.T) {
	for _, good := range []string{"6.1.0-47-cloud-amd64", "6.12.107+deb12-cloud-amd64", "6.12.90+deb13.1-amd64", "7.3.4+deb13-rt-amd64"} {
		if err := checkRelease(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"6.12-cloud-amd64", "cloud-amd64", "6.1.0-47-arm64", "6.1.0-47-cloud-amd64-dbg", "../6.1.0-47-amd64",
		"6.1.0-47/../x-amd64", "6.1.0 -amd64", "-o6.1.0-amd64", "6.1.0-47_1-amd64"} {
		if err := checkRelease(bad); err == nil || !strings.Contains(err.Error(), "is no release of a Debian kernel for amd64") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestParseMadison(t *testing.T) {
	out := ` linux-source-6.12 | 6.12.117-1 | http://archive.example/debian trixie/main amd64 Packages
 linux-source-6.12 | 6.12.117-1 | http://archive.example/debian-security trixie-security/main amd64 Packages
linux-source-6.12 | 6.12.99-1 | http://archive.example/debian trixie/main Sources
N: Unable to locate package linux-image-1
`
	want := []offer{{"linux-source-6.12", "6.12.117-1"}}
	if diff := cmp.Diff(want, parseMadison(out), cmp.AllowUnexported(offer{})); diff != "" {
		t.Error(diff)
	}
}

func TestComplete(t *testing.T) {
	bookworm := parseMadison(readTestdata(t, "madison.txt"))
	trixie := parseMadison(readTestdata(t, "madison-trixie.txt"))
	tests := []struct {
		name    string
		offers  []offer
		release string
		want    packages
	}{
		{"bookworm 6.1", bookworm, "6.1.0-47-cloud-amd64", packages{
			release: "6.1.0-47-cloud-amd64", version: "6.1.170-3", image: "linux-image-6.1.0-47-cloud-amd64",
			headers: "linux-headers-6.1.0-47-cloud-amd64", source: "linux-source-6.1"}},
		{"bookworm 6.12", bookworm, "6.12.117+deb12-cloud-amd64", packages{
			release: "6.12.117+deb12-cloud-amd64", version: "6.12.117-1~deb12u1", image: "linux-image-6.12.117+deb12-cloud-amd64",
			headers: "linux-headers-6.12.117+deb12-cloud-amd64", source: "linux-source-6.12"}},
		{"trixie", trixie, "6.12.117+deb13-cloud-amd64", packages{
			release: "6.12.117+deb13-cloud-amd64", version: "6.12.117-1", image: "linux-image-6.12.117+deb13-cloud-amd64",
			headers: "linux-headers-6.12.117+deb13-cloud-amd64", source: "linux-source-6.12"}},
		{"unsigned only", []offer{
			{"linux-image-6.12.1-amd64-unsigned", "6.12.1-1"}, {"linux-headers-6.12.1-amd64", "6.12.1-1"}, {"linux-source-6.12", "6.12.1-1"},
		}, "6.12.1-amd64", packages{
			release: "6.12.1-amd64", version: "6.12.1-1", image: "linux-image-6.12.1-amd64-unsigned",
			headers: "linux-headers-6.12.1-amd64", source: "linux-source-6.12"}},
		{"newest version with source", []offer{
			{"linux-image-6.12.1-amd64", "6.12.1-9"}, {"linux-image-6.12.1-amd64", "6.12.1-10"}, {"linux-image-6.12.1-amd64", "6.12.1-11"},
			{"linux-headers-6.12.1-amd64", "6.12.1-9"}, {"linux-headers-6.12.1-amd64", "6.12.1-10"}, {"linux-headers-6.12.1-amd64", "6.12.1-11"},
			{"linux-source-6.12", "6.12.1-9"}, {"linux-source-6.12", "6.12.1-10"},
		}, "6.12.1-amd64", packages{
			release: "6.12.1-amd64", version: "6.12.1-10", image: "linux-image-6.12.1-amd64",
			headers: "linux-headers-6.12.1-amd64", source: "linux-source-6.12"}},
		// The image is there, but the archive dropped source and headers of its version.
		{"no source", bookworm, "6.1.0-48-cloud-amd64", packages{}},
		{"unknown", bookworm, "6.1.0-99-cloud-amd64", packages{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := complete(tt.offers, tt.release)
			if ok != (tt.want.version != "") {
				t.Fatalf("complete says %v", ok)
			}
			if !ok {
				return
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(packages{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNewest(t *testing.T) {
	tests := []struct {
		name string
		file string
		from []string
		want []string
	}{
		{"bookworm", "madison.txt", []string{"6.1.0-47-cloud-amd64", "6.1.0-48-cloud-amd64", "6.12.115+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64"},
			[]string{"6.12.117+deb12-cloud-amd64", "6.12.115+deb12-cloud-amd64", "6.1.0-47-cloud-amd64"}},
		{"backports last", "madison-trixie.txt", []string{"6.12.117+deb13-cloud-amd64", "7.3.4+deb13-cloud-amd64"},
			[]string{"6.12.117+deb13-cloud-amd64", "7.3.4+deb13-cloud-amd64"}},
		{"only backports", "madison-trixie.txt", []string{"7.3.4+deb13-cloud-amd64"}, []string{"7.3.4+deb13-cloud-amd64"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, p := range newest(parseMadison(readTestdata(t, tt.file)), tt.from) {
				got = append(got, p.release)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseShow(t *testing.T) {
	var sizes []int64
	for _, r := range parseShow(readTestdata(t, "show.txt")) {
		if r.version != "6.12.117-1~deb12u1" {
			t.Errorf("%s: version %q", r.name, r.version)
		}
		sizes = append(sizes, r.size)
		if parts := imageParts(r.depends, "6.12.117+deb12-cloud-amd64"); parts != nil {
			t.Errorf("%s: parts %q", r.name, parts)
		}
	}
	if diff := cmp.Diff([]int64{34307256, 2931728, 153476148}, sizes); diff != "" {
		t.Error(diff)
	}
	const split = "7.3.4+deb13-cloud-amd64"
	want := []string{"linux-base-" + split, "linux-binary-" + split, "linux-modules-" + split}
	if diff := cmp.Diff(want, imageParts(parseShow(readTestdata(t, "show-split.txt"))[0].depends, split)); diff != "" {
		t.Error(diff)
	}
}

func TestNotOffered(t *testing.T) {
	offers := parseMadison(readTestdata(t, "madison.txt"))
	e := &notOffered{release: "6.1.0-48-cloud-amd64", offers: offers,
		others: newest(offers, []string{"6.1.0-47-cloud-amd64", "6.12.117+deb12-cloud-amd64"})}
	want := `apt does not offer all of 6.1.0-48-cloud-amd64 in one version:
  linux-image-6.1.0-48-cloud-amd64: 6.1.172-1
  linux-image-6.1.0-48-cloud-amd64-unsigned: none
  linux-headers-6.1.0-48-cloud-amd64: none
  linux-source-6.1: 6.1.192-2, 6.1.192-1, 6.1.190-1, 6.1.187-1, 6.1.176-1, 6.1.170-3
the newest that it offers:
  6.12.117+deb12-cloud-amd64 (6.12.117-1~deb12u1)
  6.1.0-47-cloud-amd64 (6.1.170-3)
if its package lists are old or missing, as root: apt-get update`
	if diff := cmp.Diff(want, e.Error()); diff != "" {
		t.Error(diff)
	}
	want = "apt offers no linux-image-*-cloud-amd64 with headers and source of the same version\n" +
		"if its package lists are old or missing, as root: apt-get update"
	if diff := cmp.Diff(want, (&notOffered{}).Error()); diff != "" {
		t.Error(diff)
	}
}
