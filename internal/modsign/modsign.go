// Package modsign signs kernel modules with the program that the kernel's build
// uses, scripts/sign-file.
//
// It has no cryptography of its own, and it does not judge whether a kernel
// would trust the key. Source: Documentation/admin-guide/module-signing.rst.
package modsign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/klpc/klpc/internal/run"
	"github.com/klpc/klpc/target"
)

// Options say what signs.
type Options struct {
	SignFile string // the program
	Key      string // private key: a PEM file, or a pkcs11: URI
	Cert     string // its certificate: a PEM or DER file
	Hash     string // sha256 and the like
}

// Result is a signed module.
type Result struct {
	Data      []byte
	Signature target.Signature
	// Replaced is the signature that the module had; nil: none.
	Replaced *target.Signature
}

// Sign signs a module. A signature that it has is replaced.
func Sign(ctx context.Context, module []byte, o Options) (*Result, error) {
	if plain, err := target.Decompress(module); err != nil {
		return nil, err
	} else if !bytes.Equal(plain, module) {
		return nil, errors.New("it is compressed, and a signature must be inside: decompress it first (xz -d, zstd -d, gzip -d)")
	}
	if _, err := target.ReadModule(module); err != nil {
		return nil, err
	}
	old, err := target.ReadSignature(module)
	if err != nil {
		return nil, err
	}
	plain, _, err := target.SplitSignature(module)
	if err != nil {
		return nil, err
	}
	data, err := runSignFile(ctx, plain, o)
	if err != nil {
		return nil, err
	}
	s, err := target.ReadSignature(data)
	if err != nil {
		return nil, fmt.Errorf("what %s has made: %w", o.SignFile, err)
	}
	if s == nil || !bytes.HasPrefix(data, plain) {
		return nil, fmt.Errorf("%s has made something else than the signed module", o.SignFile)
	}
	return &Result{Data: data, Signature: *s, Replaced: old}, nil
}

func runSignFile(ctx context.Context, module []byte, o Options) ([]byte, error) {
	if err := errors.Join(readable("key", o.Key), readable("certificate", o.Cert)); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "klpc-sign-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	in, out := filepath.Join(dir, "module.ko"), filepath.Join(dir, "signed.ko")
	if err := os.WriteFile(in, module, 0o600); err != nil {
		return nil, err
	}
	_, err = run.Do(ctx, run.Cmd{Args: []string{o.SignFile, o.Hash, o.Key, o.Cert, in, out}})
	var failed *run.Error
	if errors.As(err, &failed) {
		hint := ""
		if strings.Contains(failed.Output, "PRIVATE KEY") || strings.Contains(failed.Output, "pass") {
			hint = "\nif the key has a passphrase, set KBUILD_SIGN_PIN"
		}
		return nil, fmt.Errorf("%w%s", err, hint)
	}
	if err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

// readable reports why a file cannot be read, before sign-file does, which says
// it in OpenSSL's words.
func readable(what, path string) error {
	if strings.HasPrefix(path, "pkcs11:") {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return f.Close()
}

// Find returns the sign-file of a kernel release that is installed on this
// machine. root is "/" but for tests.
func Find(root, release string) (string, error) {
	series := strings.Join(strings.SplitN(release, ".", 3)[:min(2, strings.Count(release, ".")+1)], ".")
	var looked []string
	for _, p := range []string{
		"lib/modules/" + release + "/build/scripts/sign-file",
		"usr/src/linux-headers-" + release + "/scripts/sign-file",
		"usr/src/kernels/" + release + "/scripts/sign-file",
		"usr/lib/linux-kbuild-" + release + "/scripts/sign-file",
		// Debian names it by the version of the package: 6.1, or 6.12.107+deb12.
		"usr/lib/linux-kbuild-" + strings.TrimSuffix(strings.TrimSuffix(release, "-amd64"), "-cloud") + "/scripts/sign-file",
		"usr/lib/linux-kbuild-" + series + "/scripts/sign-file",
	} {
		path := filepath.Join(root, p)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
		looked = append(looked, path)
	}
	return "", fmt.Errorf("no sign-file for kernel %s: give --kernel K or --sign-file PROGRAM, or install linux-kbuild-%s or the kernel's headers; looked for\n%s",
		release, series, strings.Join(looked, "\n"))
}
