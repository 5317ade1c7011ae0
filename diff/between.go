package diff

import "bytes"

// Between describes the way from one content to another as a single edit:
// everything between the first and the last line that differ. It serves files
// that several patches of a series have changed.
func Between(old, content []byte) *Applied {
	a, b := bytes.SplitAfter(old, []byte("\n")), bytes.SplitAfter(content, []byte("\n"))
	head := 0
	for head < min(len(a), len(b)) && bytes.Equal(a[head], b[head]) {
		head++
	}
	tail := 0
	for tail < min(len(a), len(b))-head && bytes.Equal(a[len(a)-1-tail], b[len(b)-1-tail]) {
		tail++
	}
	out := &Applied{Content: bytes.Clone(content)}
	if head < len(a) || head < len(b) {
		out.Edits = []Edit{{OldStart: head + 1, OldLines: len(a) - head - tail, NewStart: head + 1, NewLines: len(b) - head - tail}}
	}
	return out
}
