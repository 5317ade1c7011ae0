package kbuild

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// split returns all simple commands of a text.
func split(text string) ([][]string, bool, error) {
	l, c := lexer{src: []byte(text)}, command{}
	var out [][]string
	dynamic := false
	for more := true; more; {
		var err error
		if more, err = l.next(&c); err != nil {
			return nil, false, err
		}
		dynamic = dynamic || c.dynamic
		if c.len() > 0 {
			out = append(out, words(&c, c.len(), func(b []byte) string { return string(b) }))
		}
	}
	return out, dynamic, nil
}

func TestLexer(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       [][]string
		dynamic    bool
	}{
		{"empty", "", nil, false},
		{"blanks", " a\tb  c ", [][]string{{"a", "b", "c"}}, false},
		{"single quotes", `-DX='"fs/proc/proc"'`, [][]string{{`-DX="fs/proc/proc"`}}, false},
		{"single in single", `'a'\''b'`, [][]string{{"a'b"}}, false},
		{"double quotes", `"a b" "c\"d" "e\\f" "g\h"`, [][]string{{"a b", `c"d`, `e\f`, `g\h`}}, false},
		{"hash in double quotes", `-D"BUILD_STR(s)=#s" x`, [][]string{{"-DBUILD_STR(s)=#s", "x"}}, false},
		{"empty words", `'' "" a`, [][]string{{"", "", "a"}}, false},
		{"backslash", `a\ b \\ \'`, [][]string{{"a b", `\`, "'"}}, false},
		{"continuation", "a \\\n b\\\nc", [][]string{{"a", "bc"}}, false},
		{"commands", "set -e; echo 'x;y' && b | c & d", [][]string{{"set", "-e"}, {"echo", "x;y"}, {"b"}, {"c"}, {"d"}}, false},
		{"redirections", "a > f 2>/dev/null b >> g 2>&1", [][]string{{"a", "b"}}, false},
		{"number that is a word", "a 2 > f", [][]string{{"a", "2"}}, false},
		{"comment", "a # b; c\nd#e", [][]string{{"a"}, {"d#e"}}, false},
		{"dollar", "a $b", [][]string{{"a", "$b"}}, true},
		{"substitution", "a $(b; (c d)) e; f", [][]string{{"a", "$(b; (c d))", "e"}, {"f"}}, true},
		{"dollar in double quotes", `a "$b"`, [][]string{{"a", "$b"}}, true},
		{"dollar in single quotes", `a '$b'`, [][]string{{"a", "$b"}}, false},
		{"backquote", "a `b`", [][]string{{"a", "`b`"}}, true},
		{"backslash at the end", `a\`, [][]string{{`a\`}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, dynamic, err := split(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if dynamic != c.dynamic {
				t.Errorf("dynamic: got %v, want %v", dynamic, c.dynamic)
			}
		})
	}
}

func TestLexerErrors(t *testing.T) {
	for text, want := range map[string]string{
		"a 'b":    "unterminated quote ' at byte 2",
		`a "b\"`:  `unterminated quote " at byte 2`,
		`a "b" "`: `unterminated quote " at byte 6`,
		`a "b\`:   `unterminated quote " at byte 2`,
	} {
		_, _, err := split(text)
		if err == nil || err.Error() != want {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

// FuzzLexer checks that the lexer ends and that quoting a word and splitting
// it gives the word back.
func FuzzLexer(f *testing.F) {
	f.Add("a 'b' \"c\" \\d ; e")
	f.Add(`-DX='\''"x"'\''`)
	f.Fuzz(func(t *testing.T, s string) {
		if _, _, err := split(s); err != nil && !strings.Contains(err.Error(), "unterminated") {
			t.Errorf("%q: %v", s, err)
		}
		quoted := "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		got, dynamic, err := split("x " + quoted)
		if diff := cmp.Diff([][]string{{"x", s}}, got); diff != "" || err != nil || dynamic {
			t.Errorf("%q: %v %v %s", quoted, dynamic, err, diff)
		}
	})
}

// TestLexerAgainstShell compares with the real thing.
func TestLexerAgainstShell(t *testing.T) {
	for _, text := range []string{
		`a 'b c' "d e" f\ g`, `-D'X="y"' "a\"b\\c\d" ''`, "a \\\n b", `a'b'"c"\d`, `x#y '#z' "#w"`,
	} {
		out, err := exec.Command("sh", "-c", `printf '%s\n' `+text).Output()
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := split(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(out), strings.Join(got[0], "\n")+"\n"); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
}
