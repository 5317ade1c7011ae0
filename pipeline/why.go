package pipeline

import (
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
)

// Why a function is in the module.
const (
	Edited  = "edited"
	Inlined = "inlined callee edited"
	Reached = "reached through a macro, type or header"
	New     = "new"
)

// reasons tells from the texts why functions changed.
type reasons struct {
	files    []touched
	original func(source string) []byte // the text of a file that the patch does not touch
	sources  map[string]*sourceReasons
}

// sourceReasons is what a unit's texts say: that of its source and those of the
// patch's headers. No other .c file can be inlined into it.
type sourceReasons struct {
	texts    [][]byte
	edited   []string            // functions whose text the patch edits, in order
	mentions map[string][]string // what each function's text mentions; nil until it is asked for
}

func newReasons(files []touched, original func(source string) []byte) *reasons {
	return &reasons{files: files, original: original, sources: map[string]*sourceReasons{}}
}

func (r *reasons) of(source string) *sourceReasons {
	if s := r.sources[source]; s != nil {
		return s
	}
	s := &sourceReasons{}
	r.sources[source] = s
	own := false
	for _, f := range r.files {
		if f.content == nil || f.path != source && strings.HasSuffix(f.path, ".c") {
			continue
		}
		own = own || f.path == source
		s.texts = append(s.texts, *f.content)
		for _, name := range editedFunctions(*f.content, f.edits) {
			if !slices.Contains(s.edited, name) {
				s.edited = append(s.edited, name)
			}
		}
	}
	if !own {
		s.texts = append(s.texts, r.original(source))
	}
	return s
}

// why explains why a function of a source changed: the patch edits its text, or
// that of functions that the compiler has inlined into it.
func (r *reasons) why(source, symbol string) string {
	s := r.of(source)
	if slices.ContainsFunc(s.edited, func(name string) bool { return ofSource(symbol, name) }) {
		return Edited
	}
	if len(s.edited) == 0 {
		return Reached
	}
	return Inlined + " (" + strings.Join(s.callees(symbol), ", ") + ")"
}

// callees are the edited functions that the text of a function mentions, itself or
// through other functions of the texts. If it mentions none, because it leads to
// them through macros or other headers, they are all that there are.
func (s *sourceReasons) callees(symbol string) []string {
	if len(s.edited) == 1 {
		return s.edited
	}
	if s.mentions == nil {
		s.mentions = map[string][]string{}
		for _, text := range s.texts {
			addMentions(s.mentions, text)
		}
	}
	var todo []string
	reached := map[string]bool{}
	reach := func(name string) {
		if s.mentions[name] != nil && !reached[name] {
			reached[name] = true
			todo = append(todo, name)
		}
	}
	for name := range s.mentions {
		if ofSource(symbol, name) {
			reach(name)
		}
	}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		for _, m := range s.mentions[name] {
			reach(m)
		}
	}
	var found []string
	for _, e := range s.edited {
		if reached[e] {
			found = append(found, e)
		}
	}
	if len(found) == 0 {
		return s.edited
	}
	return found
}

// addMentions adds for each function of a text what it mentions, but for fields.
func addMentions(mentions map[string][]string, text []byte) {
	toks := diff.Tokens(text)
	for _, f := range diff.Functions(text) {
		i, _ := slices.BinarySearchFunc(toks, f.First, func(t diff.Token, line int) int { return t.Line - line })
		names := mentions[f.Name]
		for ; i < len(toks) && toks[i].Line <= f.Last; i++ {
			if field := i > 1 && (toks[i-1].Text == "." || toks[i-1].Text == ">" && toks[i-2].Text == "-"); !field {
				names = append(names, toks[i].Text)
			}
		}
		mentions[f.Name] = names
	}
}

// editedFunctions names the functions whose text the edits touch, in order.
func editedFunctions(text []byte, edits []diff.Edit) []string {
	var names []string
	seen := map[string]bool{}
	for _, f := range diff.Functions(text) {
		for _, e := range edits {
			if e.NewStart <= f.Last && e.NewStart+max(e.NewLines, 1) > f.First && !seen[f.Name] {
				seen[f.Name] = true
				names = append(names, f.Name)
			}
		}
	}
	return names
}
