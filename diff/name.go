package diff

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// devNull stands for "no file" on either side of a patch.
const devNull = "/dev/null"

// errUnterminated is a quoted name without its second quote.
var errUnterminated = errors.New("unterminated quoted file name")

// cleanName checks a name as it stands in a patch and strips its first element,
// as patch -p1 does. The result stays within the tree.
func cleanName(raw string) (string, error) {
	if raw == "" {
		return "", errors.New("empty file name")
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] < ' ' || raw[i] == 0x7f {
			return "", fmt.Errorf("control character in file name %q", raw)
		}
	}
	if raw[0] == '/' {
		return "", fmt.Errorf("absolute path %q", raw)
	}
	if err := insideTree(raw); err != nil {
		return "", err
	}
	_, rest, found := strings.Cut(raw, "/")
	if !found {
		return "", fmt.Errorf("file name %q has no leading directory to strip (-p1)", raw)
	}
	return rest, checkPath(rest)
}

// insideTree refuses a path with an element that leads upwards.
func insideTree(path string) error {
	for elem := range strings.SplitSeq(path, "/") {
		if elem == ".." {
			return fmt.Errorf("path %q leaves the tree", path)
		}
	}
	return nil
}

// checkPath refuses what is not a plain path relative to the tree.
func checkPath(path string) error {
	switch {
	case path == "":
		return errors.New("empty file name")
	case path[0] == '/':
		return fmt.Errorf("absolute path %q", path)
	}
	if err := insideTree(path); err != nil {
		return err
	}
	if path == "." || !fs.ValidPath(path) {
		return fmt.Errorf("malformed path %q", path)
	}
	return nil
}

// unquote decodes a name that git or GNU diff has put in double quotes, with C
// escapes, and returns what follows the second quote.
func unquote(s string) (name, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; c {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			d, n, ok := escape(s[i+1:])
			if !ok {
				return "", "", fmt.Errorf("unknown escape in quoted file name %s", s)
			}
			b.WriteByte(d)
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errUnterminated
}

// escape decodes the escape after a backslash and tells its length in bytes.
func escape(s string) (c byte, n int, ok bool) {
	const letters, values = `abtnvfr"\`, "\a\b\t\n\v\f\r\"\\"
	if s == "" {
		return 0, 0, false
	}
	if i := strings.IndexByte(letters, s[0]); i >= 0 {
		return values[i], 1, true
	}
	if len(s) < 3 || s[0] > '3' {
		return 0, 0, false
	}
	for _, d := range []byte(s[:3]) {
		if d < '0' || d > '7' {
			return 0, 0, false
		}
		c = c<<3 | (d - '0')
	}
	return c, 3, true
}

// rawName takes the name off a "---" or "+++" line, whose prefix has been cut,
// and returns the timestamp after the tab, if any.
func rawName(s string) (name, stamp string, err error) {
	s = strings.TrimSuffix(s, "\r")
	if !strings.HasPrefix(s, `"`) {
		name, stamp, _ = strings.Cut(s, "\t")
		if strings.Contains(name, `\`) {
			return "", "", fmt.Errorf("backslash in file name %q", name)
		}
		return name, stamp, nil
	}
	name, rest, err := unquote(s)
	if err != nil {
		return "", "", err
	}
	if rest != "" && rest[0] != '\t' {
		return "", "", fmt.Errorf("text after quoted file name: %q", rest)
	}
	return name, strings.TrimPrefix(rest, "\t"), nil
}

// bareName decodes a name that a git header gives whole and without a prefix.
func bareName(s string) (string, error) {
	name, stamp, err := rawName(s)
	if err != nil {
		return "", err
	}
	if stamp != "" {
		return "", fmt.Errorf("text after file name: %q", stamp)
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fmt.Errorf("control character in file name %q", name)
	}
	return name, checkPath(name)
}

// isEpoch tells whether a timestamp is the beginning of 1970, by which diff -N
// marks a file that does not exist.
func isEpoch(stamp string) bool {
	for _, layout := range []string{"2006-01-02 15:04:05 -0700", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, stamp); err == nil {
			return t.Unix() == 0
		}
	}
	return false
}

// gitPairs returns every way to read the two names of a "diff --git" line. The
// format is ambiguous when unquoted names hold spaces.
func gitPairs(s string) [][2]string {
	s = strings.TrimSuffix(s, "\r")
	var pairs [][2]string
	add := func(left, right string) {
		if strings.HasPrefix(right, `"`) {
			name, rest, err := unquote(right)
			if err != nil || rest != "" {
				return
			}
			right = name
		}
		pairs = append(pairs, [2]string{left, right})
	}
	if strings.HasPrefix(s, `"`) {
		name, rest, err := unquote(s)
		if err == nil && strings.HasPrefix(rest, " ") {
			add(name, rest[1:])
		}
		return pairs
	}
	for i := range len(s) {
		if s[i] == ' ' {
			add(s[:i], s[i+1:])
		}
	}
	return pairs
}
