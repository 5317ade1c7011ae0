package livepatch

import (
	"errors"
	"io"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What the kernel says by number is said in words, with what it has logged.
func TestInsertError(t *testing.T) {
	m := fakeModule("livepatch_a", false, "f")
	for _, tt := range []struct {
		name string
		err  error
		log  []string
		want string
	}{
		{"known", syscall.EKEYREJECTED, []string{"Loading of unsigned module is rejected"}, `load livepatch_a: the kernel wants modules to be signed with a key that it trusts (EKEYREJECTED, key was rejected by service)
kernel: Loading of unsigned module is rejected
what to do: sign it (klpc sign) with a key of the kernel's or the machine owner's keyring (MOK)`},
		{"taints are no reasons", syscall.ENOEXEC, []string{"livepatch_a: loading out-of-tree module taints kernel.", "livepatch_a: version magic '1' should be '2'"},
			`load livepatch_a: the kernel does not accept the file (ENOEXEC, exec format error)
kernel: livepatch_a: version magic '1' should be '2'
what to do: it was built for another kernel or configuration, or is damaged: build it for this kernel`},
		{"last lines", syscall.EINVAL, []string{"1", "2", "3", "4", "5", "6", "7"}, `load livepatch_a: the livepatch core refuses it (EINVAL, invalid argument)
kernel: 2
kernel: 3
kernel: 4
kernel: 5
kernel: 6
kernel: 7`},
		{"unknown", io.ErrUnexpectedEOF, nil, "load livepatch_a: unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := insertError(m, tt.err, tt.log)
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Error(d)
			}
			if !errors.Is(err, tt.err) {
				t.Error("the number is lost")
			}
		})
	}
}
