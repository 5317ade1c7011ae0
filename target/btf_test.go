package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// testBTF is the BTF of: struct pair { int a; int b; };
func testBTF(t testing.TB) []byte {
	t.Helper()
	integer := &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}
	pair := &btf.Struct{Name: "pair", Size: 8, Members: []btf.Member{
		{Name: "a", Type: integer}, {Name: "b", Type: integer, Offset: 32},
	}}
	b, err := btf.NewBuilder([]btf.Type{pair}, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := b.Marshal(nil, &btf.MarshalOptions{Order: binary.LittleEndian})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTypes(t *testing.T) {
	im := &Image{Sections: []ImageSection{{Name: ".BTF", Data: testBTF(t)}}}
	spec, err := im.Types()
	if err != nil {
		t.Fatal(err)
	}
	var pair *btf.Struct
	if err := spec.TypeByName("pair", &pair); err != nil {
		t.Fatal(err)
	}
	if m := pair.Members[1]; m.Name != "b" || m.Offset.Bytes() != 4 {
		t.Errorf("second member: %v", m)
	}
}

func TestTypesRefusals(t *testing.T) {
	if _, err := (&Image{}).Types(); !errors.Is(err, ErrNoBTF) {
		t.Errorf("an image without BTF: %v", err)
	}
	whole := testBTF(t)
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"cut", whole[:len(whole)-1]},
		{"no header", []byte("BTF")},
		{"wrong magic", append([]byte{1}, whole[1:]...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := (&Image{Sections: []ImageSection{{Name: ".BTF", Data: test.data}}}).Types()
			if err == nil || !strings.HasPrefix(err.Error(), "BTF of the kernel: ") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// FuzzTypes asserts the contract alone: an error or types that can be walked.
func FuzzTypes(f *testing.F) {
	f.Add(testBTF(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		im := &Image{Sections: []ImageSection{{Name: ".BTF", Data: bytes.Clone(data)}}}
		spec, err := im.Types()
		if err != nil {
			return
		}
		for typ, err := range spec.All() {
			if err != nil {
				break
			}
			_ = typ.TypeName()
		}
	})
}
