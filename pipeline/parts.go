package pipeline

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/klpc/klpc/distro"
	"github.com/klpc/klpc/kbuild"
	"github.com/klpc/klpc/target"
)

// partsKernel prepares a kernel from its parts: source, configuration, symbol
// versions and image. All of them are looked at before the tree is prepared,
// which takes a minute.
func partsKernel(ctx context.Context, o KernelOptions, ev Events) (*Kernel, error) {
	if err := partsGiven(o); err != nil {
		return nil, err
	}
	config, configErr := readPartsConfig(o.Config)
	_, symversErr := readExports(o.Symvers)
	facts, imageErr := readImageFacts(o.Image)
	if err := errors.Join(configErr, symversErr, imageErr, checkModulesDir(o.Modules)); err != nil {
		return nil, err
	}
	release, note, err := partsRelease(o, facts, config)
	if err != nil {
		return nil, err
	}
	t, err := distro.FromParts(ctx, distro.Parts{Source: o.Source, Config: o.Config, Symvers: o.Symvers, Release: release}, distroOptions(o, ev))
	if err != nil {
		return nil, err
	}
	k, err := preparedKernel(t)
	if err != nil {
		return nil, err
	}
	k.ImagePath, k.Modules = o.Image, o.Modules
	if facts.boots {
		k.BzImage = o.Image
	}
	if note != "" {
		k.Warnings = append(k.Warnings, note)
	}
	if facts.list {
		k.Warnings = append(k.Warnings, o.Image+" lists symbols only, so nothing proves that these sources, this configuration and this compiler build the running kernel; give its vmlinuz if you have it")
	}
	return k, nil
}

func partsGiven(o KernelOptions) error {
	var errs []error
	for _, p := range []struct{ flag, value string }{
		{"--source", o.Source}, {"--config", o.Config}, {"--symvers", o.Symvers}, {"--image", o.Image},
	} {
		if p.value == "" {
			errs = append(errs, fmt.Errorf("%s is missing: give --kernel, or all of --source, --config, --symvers and --image", p.flag))
		}
	}
	return errors.Join(errs...)
}

// readPartsConfig returns the text of a configuration that livepatches need.
func readPartsConfig(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the kernel's configuration: %w", err)
	}
	c, err := kbuild.ParseConfig(bytes.NewReader(text))
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n") // of a wrong file every line is wrong
		return "", fmt.Errorf("%s is no configuration of a kernel: %s", path, first)
	}
	if !c.Bool("CONFIG_LIVEPATCH") {
		return "", fmt.Errorf("%s has no CONFIG_LIVEPATCH=y: this kernel cannot load livepatches", path)
	}
	return string(text), nil
}

func checkModulesDir(dir string) error {
	if dir == "" {
		return nil
	}
	st, err := os.Stat(dir)
	if err == nil && !st.IsDir() {
		err = fmt.Errorf("%s is no folder", dir)
	}
	if err != nil {
		return fmt.Errorf("look for modules: %w", err)
	}
	return nil
}

// partsRelease settles what uname -r says on the kernel, which vermagic must
// say too, or the kernel refuses the module.
func partsRelease(o KernelOptions, facts imageFacts, config string) (release, note string, err error) {
	switch {
	case o.Release != "" && facts.release != "" && o.Release != facts.release:
		return "", "", fmt.Errorf("--release says %s, but %s is the kernel %s", o.Release, o.Image, facts.release)
	case o.Release != "":
		return o.Release, "", nil
	case facts.release != "":
		return facts.release, "", nil
	}
	release, ok := distro.ConfigRelease(config)
	if !ok {
		return "", "", fmt.Errorf("neither %s nor %s says which release the kernel is: give what uname -r says there with --release", o.Image, o.Config)
	}
	return release, fmt.Sprintf("the kernel's release is taken to be %s, as the configuration has it; if uname -r says something else there, the module will not load: give --release", release), nil
}

// imageFacts are what an image says of itself.
type imageFacts struct {
	release string // "" if it does not say
	list    bool   // a list of symbols, without code
	boots   bool   // a bzImage, which a boot loader can start
}

// Fields of the x86 setup header, byte offsets in a bzImage.
// Source: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
const (
	bzMagic         = 0x202 // "HdrS"
	bzKernelVersion = 0x20e // 2 bytes: where the version string lies, less 0x200; 0: nowhere
	bzVersionBase   = 0x200
	bzSetupMax      = 64 << 10 // bytes; more than the real-mode code can have
)

// readImageFacts looks into a vmlinux, vmlinuz, System.map or dump of kallsyms.
// Of a vmlinuz only the header is read, which is quick; the others are cheap to
// read whole.
func readImageFacts(path string) (imageFacts, error) {
	f, err := os.Open(path)
	if err != nil {
		return imageFacts{}, fmt.Errorf("read the kernel's image: %w", err)
	}
	defer f.Close()
	head, err := io.ReadAll(io.LimitReader(f, bzSetupMax))
	if err != nil {
		return imageFacts{}, fmt.Errorf("read the kernel's image: %w", err)
	}
	switch {
	case looksLikeSymbolList(head):
		_, err := readImage(path)
		return imageFacts{list: err == nil}, err
	case len(head) > bzKernelVersion+2 && string(head[bzMagic:bzMagic+4]) == "HdrS":
		return imageFacts{release: bzRelease(head), boots: true}, nil
	}
	rest, err := io.ReadAll(f)
	if err != nil {
		return imageFacts{}, fmt.Errorf("read the kernel's image: %w", err)
	}
	im, err := target.ReadImage(append(head, rest...))
	if err != nil {
		return imageFacts{}, fmt.Errorf("%s: %w; --image takes a vmlinux, vmlinuz, System.map or a dump of /proc/kallsyms", path, err)
	}
	return imageFacts{release: bannerRelease(im)}, nil
}

// bzRelease returns the first word of the version string of a bzImage.
func bzRelease(head []byte) string {
	at := int(binary.LittleEndian.Uint16(head[bzKernelVersion:]))
	if at == 0 || at+bzVersionBase >= len(head) {
		return ""
	}
	text, _, _ := bytes.Cut(head[at+bzVersionBase:], []byte{0})
	release, _, _ := bytes.Cut(text, []byte(" "))
	return string(release)
}

// banner is linux_banner of init/version.c as far as the builder's name.
var banner = regexp.MustCompile(`Linux version ([0-9]\S*) \(`)

func bannerRelease(im *target.Image) string {
	for _, s := range im.Sections {
		if m := banner.FindSubmatch(s.Data); m != nil {
			return string(m[1])
		}
	}
	return ""
}
