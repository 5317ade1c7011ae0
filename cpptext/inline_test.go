package cpptext_test

import (
	"slices"
	"testing"

	"github.com/klpc/klpc/cpptext"
)

func TestDeclaredInline(t *testing.T) {
	const text = `
static inline __attribute__((__gnu_inline__)) __attribute__((__unused__)) __attribute__((no_instrument_function)) int a(int x)
{
	return x;
}
static __inline__ void *b(struct s { int c; } *p) { return p; }
static __attribute__((no_instrument_function)) int c(int x) { inline int y = x; return y; }
static inline int d(int x);
static int d(int x) { return x; }
extern inline int e;
`
	got := cpptext.DeclaredInline([]byte(text), []string{"d", "c", "b", "a", "e", "nowhere"})
	if want := []string{"b", "a"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
