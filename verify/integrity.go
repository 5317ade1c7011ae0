package verify

import (
	"bytes"
	"crypto/sha1"
)

// integrity compares the build ID with the content that it was computed from: a
// SHA-1 of the file with zeros in its place. It is no proof that the module is
// right, but a file that has changed since it was built is not the one that was
// proven then.
func (c *check) integrity() {
	if c.v.NoIntegrity {
		return
	}
	note := c.obj.Section(".note.gnu.build-id")
	if note == nil || len(note.Data) < 16+sha1.Size {
		c.find(Accepted, "the file", "it has no build ID", "this module was not made by klpc, or its notes were stripped: build it again")
		return
	}
	id := note.Data[16 : 16+sha1.Size]
	at := bytes.Index(c.file, note.Data)
	if at < 0 {
		return
	}
	zeroed := bytes.Clone(c.file)
	clear(zeroed[at+16 : at+16+sha1.Size])
	if sum := sha1.Sum(zeroed); !bytes.Equal(sum[:], id) {
		c.find(Accepted, "the file", "its build ID is not that of its content: it has been changed since it was built", "build it again")
	}
}
