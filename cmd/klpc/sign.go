package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/klpc/klpc/internal/modsign"
	"github.com/klpc/klpc/internal/ui"
	"github.com/klpc/klpc/pipeline"
	"github.com/klpc/klpc/target"
)

// signOptions are the flags of klpc sign.
type signOptions struct {
	module, output string
	key, cert      string
	hash           string
	kernel         string
	signFile       string
	progress       ui.Mode
	json           bool
}

// signHashes are the digests that kernels can check, MODULE_SIG_HASH.
func signHashes() []string { return []string{"sha256", "sha384", "sha512", "sha224", "sha1"} }

func newSign(a *app, f func(context.Context, *app, signOptions) error) *cobra.Command {
	var o signOptions
	cmd := &cobra.Command{
		Use:   "sign MODULE.ko --key KEY --cert CERT [flags]",
		Short: "Sign a module with the kernel's own sign-file",
		Long: `sign appends a signature to a module, by means of the kernel's own program
scripts/sign-file. The module is replaced at once, or --output is written. A
signature that the module has is replaced.

sign-file comes from the kernel tree that --kernel names, from --sign-file, or
from what there is for the release that the module was built for: its headers,
Debian's linux-kbuild, or a kernel that klpc has fetched. For a key with a passphrase set
KBUILD_SIGN_PIN; a key in hardware is given as a pkcs11: URI.`,
		Example: `  klpc sign livepatch-fix.ko --key signing_key.pem --cert signing_key.x509
  klpc sign livepatch-fix.ko -o signed.ko --key key.pem --cert cert.pem --kernel debian:$(uname -r)`,
		Args:              exactly(1, "one MODULE.ko"),
		ValidArgsFunction: complete("ko"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.module = args[0]
			switch {
			case o.key == "" || o.cert == "":
				return usageError{errors.New("--key and --cert are needed")}
			case o.kernel != "" && o.signFile != "":
				return usageError{errors.New("--kernel excludes --sign-file")}
			}
			return f(cmd.Context(), a, o)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.key, "key", "", "the private key: a PEM `FILE` or a pkcs11: URI")
	fl.StringVar(&o.cert, "cert", "", "the certificate of the key: a PEM or DER `FILE`")
	fl.StringVar(&o.hash, "hash", signHashes()[0], "the digest `ALGORITHM`, which the kernel must have built in")
	completeFlag(cmd, "hash", signHashes()...)
	fl.StringVar(&o.kernel, "kernel", "", "take sign-file from the kernel `K`: a built tree, or debian:RELEASE")
	fl.StringVar(&o.signFile, "sign-file", "", "the kernel's sign-file `PROGRAM`")
	fl.StringVarP(&o.output, "output", "o", "", "write the signed module to `FILE`; default: replace MODULE.ko")
	progressFlag(cmd, &o.progress)
	fl.BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runSign(ctx context.Context, a *app, o signOptions) error {
	data, err := os.ReadFile(o.module)
	if err != nil {
		return err
	}
	program, err := signProgram(ctx, a, o, data)
	if err != nil {
		return fmt.Errorf("sign %s: %w", o.module, err)
	}
	r, err := modsign.Sign(ctx, data, modsign.Options{SignFile: program, Key: o.key, Cert: o.cert, Hash: o.hash})
	if err != nil {
		return fmt.Errorf("sign %s: %w", o.module, err)
	}
	out := o.output
	if out == "" {
		out = o.module
	}
	if err := renameio.WriteFile(out, r.Data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", out, err)
	}
	if r.Replaced != nil {
		fmt.Fprintf(a.err, "note: the signature by %s was replaced\n", r.Replaced.Signer)
	}
	if o.json {
		return printJSON(a.out, struct {
			File      string           `json:"file"`
			Signature target.Signature `json:"signature"`
		}{out, r.Signature})
	}
	_, err = fmt.Fprintf(a.out, "%s: signed by %s, key %s, %s\n", out, r.Signature.Signer, r.Signature.Key, r.Signature.Hash)
	return err
}

// signProgram finds the kernel's sign-file.
func signProgram(ctx context.Context, a *app, o signOptions, module []byte) (string, error) {
	switch {
	case o.signFile != "":
		return executable(o.signFile)
	case o.kernel == "debian" || strings.HasPrefix(o.kernel, "debian:"):
		p := a.progress(o.progress)
		defer p.Close()
		cache, err := pipeline.CacheDir()
		if err != nil {
			return "", err
		}
		k, err := openKernel(ctx, pipeline.KernelOptions{Kernel: o.kernel, Cache: cache}, p)
		if err != nil {
			return "", err
		}
		return executable(filepath.Join(k.Tree.Build, "scripts/sign-file"))
	case o.kernel != "":
		path, err := executable(filepath.Join(o.kernel, "scripts/sign-file"))
		if err != nil {
			return "", fmt.Errorf("%w; it is built with the kernel if CONFIG_MODULE_SIG is on (make modules_prepare)", err)
		}
		return path, nil
	}
	m, err := target.ReadModule(module)
	if err != nil {
		return "", err
	}
	release, _, _ := strings.Cut(strings.Join(m.Modinfo("vermagic"), " "), " ")
	if release == "" {
		return "", errors.New("it has no vermagic that says for which kernel it is: give --kernel or --sign-file")
	}
	path, err := modsign.Find("/", release)
	if err == nil {
		return path, nil
	}
	// One that klpc has fetched for --kernel debian:RELEASE.
	if cache, cacheErr := pipeline.CacheDir(); cacheErr == nil {
		if found, globErr := filepath.Glob(filepath.Join(cache, "kernels/debian", release+"_*", "build/scripts/sign-file")); globErr == nil && len(found) > 0 {
			return executable(found[len(found)-1])
		}
	}
	return "", err
}

// executable returns the absolute path of a program, so that it is not looked up in PATH.
func executable(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("%s is not an executable file", path)
	}
	return filepath.Abs(path)
}
