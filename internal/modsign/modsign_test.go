package modsign

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	tests := []struct{ name, release, there, want string }{
		{"the kernel's build folder", "6.12.5", "lib/modules/6.12.5/build/scripts/sign-file", ""},
		{"Fedora's headers", "6.12.5-200.fc41.x86_64", "usr/src/kernels/6.12.5-200.fc41.x86_64/scripts/sign-file", ""},
		{"Debian 12's linux-kbuild", "6.1.0-57-cloud-amd64", "usr/lib/linux-kbuild-6.1/scripts/sign-file", ""},
		{"Debian 13's linux-kbuild", "6.12.107+deb13-cloud-amd64", "usr/lib/linux-kbuild-6.12.107+deb13/scripts/sign-file", ""},
		{"another release's", "6.12.5", "lib/modules/6.12.6/build/scripts/sign-file", "no sign-file for kernel 6.12.5"},
		{"none", "7", "x", "install linux-kbuild-7 or"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, tt.there)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, nil, 0o755); err != nil {
				t.Fatal(err)
			}
			got, err := Find(root, tt.release)
			switch {
			case tt.want == "" && (err != nil || got != file):
				t.Errorf("%q %v", got, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("%q %v, want %s", got, err, tt.want)
			}
		})
	}
}
