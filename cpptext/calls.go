package cpptext

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// What is given to macros that paste.
//
// An operand of ## is not expanded: it is the text that stands in the call. So if
// all calls of a macro that pastes its parameter stand where their text is plain to
// see, then only the words that are given there can be operands. Such a parameter
// is closed. It is open, and any word can be an operand, if
//
//   - the macro's name stands without a call: it may be passed on and called
//     elsewhere;
//   - a call in another #define gives it a parameter of that one, or something
//     made by ##;
//   - its name could be made by ## itself, by a pattern that has letters.
//
// A pattern that arguments follow counts as a call of each macro whose name fits.
//
// It is also open if the macro pastes by way of another (__PASTE), which expands
// operands first.

// maxParameters is how many parameters of a macro are followed; all is the number
// that stands for every parameter.
const (
	maxParameters = 15
	all           = maxParameters
)

// closedOperand is an operand that is written as its macro and its number, from 0.
const closedMark = "\x02"

func closedOperand(macro string, parameter int) string {
	return operand + macro + closedMark + strconv.Itoa(parameter)
}

func isOperand(part string) bool { return strings.HasPrefix(part, operand) }

// given is a word that stands in a call as a macro's argument.
type given struct{ parameter, place int }

// Pasting returns the macros of a file that may make a name, or a part of one.
func (q *Query) Pasting(text []byte) []string {
	if !bytes.Contains(text, []byte("##")) {
		return nil
	}
	s := &search{Query: q, places: map[int]bool{}, patterns: map[string]bool{}}
	var macros []string
	l := newLexer(text, newNames(1<<10))
	for t := l.next(); t.kind != eof; t = l.next() {
		if t.kind != pragma || !bytes.Contains(text[t.start:t.end], []byte("##")) {
			continue
		}
		name, rest := directive(text[t.start:t.end])
		if string(name) != "define" {
			continue
		}
		m, _ := s.define(rest)
		if len(s.patterns) > 0 {
			macros = append(macros, m)
			clear(s.patterns)
		}
	}
	slices.Sort(macros)
	return slices.Compact(macros)
}

// Follow makes Look note what is given to macros, those that Pasting has found in
// any file. Without it all parameters count as open.
func (q *Query) Follow(macros []string) {
	q.macros = map[string]int{}
	for _, m := range macros {
		if _, ok := q.macros[m]; !ok {
			q.macros[m] = len(q.macros)
		}
	}
}

// parameter is the number of a macro's parameter among those of all macros.
func (q *Query) parameter(macro, n int) int { return macro*(maxParameters+1) + n }

// open notes that anything may be given to a parameter of followed macros.
func (s *search) open(macros []int, n int) {
	for _, m := range macros {
		s.opened[s.parameter(m, min(n, all))] = true
	}
}

// byName takes a pattern in a macro's body that may make the names of followed
// macros. If it is called there, the lexer stands behind the parenthesis.
func (s *search) byName(parts []string, called bool, after lexer, parameters map[string]string) {
	letters := 0
	for _, p := range parts {
		if !isOperand(p) {
			letters += len(strings.Trim(p, "_"))
		}
	}
	if letters == 0 && !called {
		return
	}
	var macros []int
	for name, m := range s.macros {
		if fitsName(parts, name) {
			macros = append(macros, m)
		}
	}
	switch {
	case len(macros) == 0:
	case called:
		s.arguments(after, macros, parameters)
	default:
		s.open(macros, all)
	}
}

// fitsName tells whether a name can be the parts of a pattern with anything for the
// operands.
func fitsName(parts []string, name string) bool {
	switch {
	case len(parts) == 0:
		return name == ""
	case !isOperand(parts[0]):
		rest, ok := strings.CutPrefix(name, parts[0])
		return ok && fitsName(parts[1:], rest)
	}
	for i := range len(name) + 1 {
		if fitsName(parts[1:], name[i:]) {
			return true
		}
	}
	return false
}

// calls notes what a macro's body gives to followed macros. parameters are those
// of the macro.
func (s *search) calls(body []byte, parameters map[string]string) {
	if len(s.macros) == 0 {
		return
	}
	mentioned := false
	eachRun(body, func(w []byte) {
		_, followed := s.macros[string(w)]
		mentioned = mentioned || followed
	})
	if !mentioned {
		return
	}
	l := newLexer(body, newNames(1<<10))
	l.bol = false
	for t := l.next(); t.kind != eof; t = l.next() {
		if t.kind == ident {
			s.call(l, t, parameters)
		}
	}
}

// call takes a mention of a name, before which the lexer stands: it may be the
// call of a followed macro.
func (s *search) call(after lexer, t token, parameters map[string]string) {
	m, followed := s.macros[string(after.src[t.start:t.end])]
	if !followed {
		return
	}
	if !after.next().is('(') {
		s.open([]int{m}, all)
		return
	}
	s.arguments(after, []int{m}, parameters)
}

// arguments takes the arguments of a call of any of the macros. The lexer stands
// behind the parenthesis.
func (s *search) arguments(l lexer, macros []int, parameters map[string]string) {
	depth, n := 0, 0
	var argument []token
	for {
		t := l.next()
		end := depth == 0 && (t.is(',') || t.is(')'))
		switch {
		case t.kind == eof || t.kind == invalid || t.kind == pragma:
			s.open(macros, all)
			return
		case end:
			s.argument(macros, n, l.src, argument, parameters)
			argument = argument[:0]
			n++
			if t.is(')') {
				return
			}
			continue
		case t.is('(') || t.is('[') || t.is('{'):
			depth++
		case t.is(')') || t.is(']') || t.is('}'):
			depth--
		}
		argument = append(argument, t)
	}
}

// argument takes one argument of a call: what is pasted is its first word or its
// last.
func (s *search) argument(macros []int, n int, src []byte, tokens []token, parameters map[string]string) {
	if n >= maxParameters {
		s.open(macros, all)
		return
	}
	for i, t := range tokens {
		text := src[t.start:t.end]
		if t.kind == punct && t.op == '#' && t.long || t.kind == ident && parameters[string(text)] != "" {
			s.open(macros, n)
			return
		}
		if i != 0 && i != len(tokens)-1 {
			continue
		}
		for _, p := range s.Query.parts[string(text)] {
			for _, m := range macros {
				s.given[given{s.parameter(m, n), p}] = true
			}
		}
	}
}

// part is one part of a pattern in a unit.
type part struct {
	literal string // if not an operand
	operand bool
	words   placeSet // that can be given for the operand; nil: any that stands in a file
}

// parts resolves a pattern's operands by what is given in a unit. A closed one to
// which no part of a name is given can only be nothing, and is left out.
func (u *union) parts(pattern []string) (out []part) {
	for _, p := range pattern {
		macro, number, closed := strings.Cut(strings.TrimPrefix(p, operand), closedMark)
		if !isOperand(p) {
			out = append(out, part{literal: p})
			continue
		}
		m, followed := u.macros[macro]
		n, err := strconv.Atoi(number)
		if !closed || !followed || err != nil || u.opened[u.parameter(m, n)] || u.opened[u.parameter(m, all)] {
			out = append(out, part{operand: true})
			continue
		}
		var words placeSet
		for _, g := range u.given {
			if g.parameter == u.parameter(m, n) {
				if words == nil {
					words = newPlaceSet(u.places)
				}
				words.add(g.place)
			}
		}
		if words != nil {
			out = append(out, part{operand: true, words: words})
		}
	}
	return out
}
