package pipeline

// Which types live on the stack alone.
//
// A type that is defined in a source file, that no variable and no other type
// holds or points to, and that the file's text names only to define it, to declare
// variables of it in functions, and to declare pointers that are parameters or
// begin as the address of something, as a parameter or as container_of one: of such a type no object
// outlives the call that made it, since nothing allocates one, casts memory to it
// or links it anywhere. A task that runs old functions with such an object does
// not run new ones before they have returned.

import (
	"slices"
	"strings"

	"github.com/klpc/klpc/diff"
)

// linking are types whose objects are reached through their own address.
var linking = []string{"list_head", "hlist_node", "hlist_nulls_node", "rb_node", "llist_node", "plist_node", "work_struct", "delayed_work",
	"timer_list", "hrtimer", "tasklet_struct", "wait_queue_entry", "wait_queue_entry_t", "wait_queue_head_t", "completion", "rcu_head", "callback_head",
	"kref", "refcount_t", "kobject", "swait_queue", "irq_work", "notifier_block", "call_single_data_t", "xarray", "idr"}

// stackOnly tells whether every object of a struct or union lives on a stack, as
// far as the text of the file that defines it says.
func stackOnly(src []byte, name string) bool {
	word, tag, ok := strings.Cut(name, " ")
	if !ok || word == "enum" {
		return false
	}
	s := stackScan{toks: diff.Tokens(src), word: word, tag: tag}
	return s.run() && s.objects && !s.sized()
}

// stackScan walks the text of a file.
type stackScan struct {
	toks      []diff.Token
	word, tag string
	objects   bool // a variable of the type was seen
	pointers  []string
}

func (s *stackScan) at(i int) string {
	if i < 0 || i >= len(s.toks) {
		return ""
	}
	return s.toks[i].Text
}

// run looks at every mention of the type; false: one of them allows objects
// beyond the stack.
func (s *stackScan) run() bool {
	depth := 0
	for i := range s.toks {
		switch s.at(i) {
		case "{":
			depth++
		case "}":
			depth--
		}
		if s.at(i) != s.word || s.at(i+1) != s.tag {
			continue
		}
		if !s.mention(i+2, depth) {
			return false
		}
	}
	return true
}

// mention judges what follows the type's name.
func (s *stackScan) mention(i, depth int) bool {
	switch next := s.at(i); {
	case next == "{":
		return s.definition(i)
	case next == ";":
		return depth == 0 // a declaration of the tag
	case next == "*":
		return s.pointer(i + 1)
	case next == "," && s.at(i-3) == "," && s.at(i-5) == "(" && s.at(i-6) == "container_of":
		return true // of an object that is on the stack like all others
	case isName(next) && s.at(i+1) != "(" && depth > 0:
		s.objects = true
		return true
	}
	return false
}

// definition looks for members that link objects.
func (s *stackScan) definition(i int) bool {
	depth := 0
	for ; i < len(s.toks); i++ {
		switch t := s.at(i); t {
		case "{":
			depth++
		case "}":
			if depth--; depth == 0 {
				return s.at(i+1) == ";"
			}
		default:
			if slices.Contains(linking, t) && s.at(i+1) != "*" {
				return false
			}
		}
	}
	return false
}

func (s *stackScan) pointer(i int) bool {
	if s.at(i) == "const" {
		i++
	}
	name := s.at(i)
	if !isName(name) {
		return false // a cast, a result or a pointer to a pointer
	}
	s.pointers = append(s.pointers, name)
	switch s.at(i + 1) {
	case ",", ")", ";":
		return true
	case "=":
		if s.at(i+2) == "&" {
			return isName(s.at(i + 3))
		}
		return isName(s.at(i+2)) && (s.at(i+3) == ";" || s.at(i+3) == "," || s.at(i+2) == "container_of")
	}
	return false
}

// sized tells whether the file takes the size of what a pointer leads to, as
// allocations do.
func (s *stackScan) sized() bool {
	for i := range s.toks {
		if s.at(i) != "sizeof" {
			continue
		}
		for j := i + 1; j < i+5; j++ {
			if s.at(j) == "*" && slices.Contains(s.pointers, s.at(j+1)) {
				return true
			}
		}
	}
	return false
}

func isName(t string) bool {
	return t != "" && (t[0] == '_' || t[0] >= 'a' && t[0] <= 'z' || t[0] >= 'A' && t[0] <= 'Z')
}
