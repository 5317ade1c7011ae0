package target

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// signedText is what the kernel's sign-file was given to sign, with a key that
// openssl made; it does not look at what it signs.
const signedText = "not really a module\n"

func TestReadSignature(t *testing.T) {
	for _, hash := range []string{"sha256", "sha512"} {
		t.Run(hash, func(t *testing.T) {
			data := signedFile(t, hash)
			got, err := ReadSignature(data)
			if err != nil {
				t.Fatal(err)
			}
			want := &Signature{Signer: "klpc test key", Key: "3f50f9fa265be2a482f6d3eb8ebfc814e624decc", Hash: hash}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			text, _, err := SplitSignature(data)
			if err != nil || string(text) != signedText {
				t.Errorf("%q %v", text, err)
			}
		})
	}
}

func signedFile(t *testing.T, hash string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "signed-"+hash+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadSignatureNone(t *testing.T) {
	if s, err := ReadSignature([]byte(signedText)); s != nil || err != nil {
		t.Errorf("%v %v", s, err)
	}
}

func TestReadSignatureDamaged(t *testing.T) {
	whole := signedFile(t, "sha256")
	info := len(whole) - len(signatureMark) - signatureInfo
	change := func(at int, b byte) []byte {
		data := append([]byte{}, whole...)
		data[at] = b
		return data
	}
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"the mark alone", []byte(signatureMark), "cut off"},
		{"PGP", change(info+signatureIDType, 0), "type 0 is not PKCS#7"},
		{"longer than the file", change(info+signatureLength, 1), "bytes are said to be there"},
		{"no DER", change(len(signedText), 0xff), "asn1: "},
		{"no size", append(change(info+signatureLength+2, 0)[:info+signatureLength+3], append([]byte{0}, signatureMark...)...), "0 bytes are said"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ReadSignature(tt.data)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "module signature: ") {
				t.Errorf("%v, %v, want %s", s, err, tt.want)
			}
		})
	}
	for n := range whole[:info] { // no cut or byte makes it panic
		_, _ = parseSignature(whole[n:info])
		_, _ = ReadSignature(change(n, whole[n]^0xff))
	}
}
