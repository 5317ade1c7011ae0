package cpptext

// Reachability.
//
// Vertices are items, edges go from an item to every item that declares a name
// which it mentions, whatever kind of name that is: an identifier stands for the
// function, the type, the tag and the enumerator of that name alike. What no root
// reaches is used by nothing that is emitted.

// implicit are functions that the compiler calls, or assumes, where the text
// does not name them.
var implicit = []string{
	"memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen", "strnlen", "strcpy", "stpcpy", "strncpy", "strcat", "strncat",
	"strcmp", "strncmp", "strchr", "strrchr", "strstr", "sprintf", "snprintf", "puts", "putchar", "abort",
	"__stack_chk_fail", "__stack_chk_guard", "__fentry__", "mcount",
}

// graph is the state of one walk.
type graph struct {
	*pool
	items []item
	// first and next are, for each name, the list of items that declare it:
	// positions in links plus one.
	first []int32
	links []link
	seen  []uint8 // by name: asMember, asName
	// waiting are the types that a name will mention once it is seen.
	waiting map[uint32][]uint32
	reached []bool // by item
	stack   []int32
}

type link struct{ item, next int32 }

const (
	asMember = 1 << iota
	asName
)

// reach finds the items of a text that a root reaches. Assertions count as
// reached, and reach nothing.
func (p *pool) reach(t *text) *graph {
	for _, n := range implicit {
		p.names.intern([]byte(n), hashOf([]byte(n)))
	}
	g := &graph{pool: p, items: t.items, first: make([]int32, len(p.names.text)), seen: make([]uint8, len(p.names.text)),
		waiting: map[uint32][]uint32{}, reached: make([]bool, len(t.items))}
	for i, it := range t.items {
		for _, id := range p.declared[it.declared.from:it.declared.to] {
			g.links = append(g.links, link{item: int32(i), next: g.first[id]})
			g.first[id] = int32(len(g.links))
		}
	}
	for i, it := range t.items {
		switch it.kind {
		case root:
			g.visit(int32(i))
		case assertion:
			g.reached[i] = true
		}
	}
	for _, n := range implicit {
		g.see(p.names.intern([]byte(n), hashOf([]byte(n))), asMember|asName)
	}
	for len(g.stack) > 0 {
		i := g.stack[len(g.stack)-1]
		g.stack = g.stack[:len(g.stack)-1]
		g.follow(g.items[i])
	}
	return g
}

func (g *graph) visit(i int32) {
	if !g.reached[i] {
		g.reached[i] = true
		g.stack = append(g.stack, i)
	}
}

// follow goes along the edges of an item. What a root declares is used: earlier
// declarations of the same name have a part in it.
func (g *graph) follow(it item) {
	if it.kind == root {
		for _, id := range g.declared[it.declared.from:it.declared.to] {
			g.see(id, asMember|asName)
		}
	}
	for _, m := range g.mentions[it.mentions.from:it.mentions.to] {
		if m&1 != 0 {
			g.see(m>>1, asMember)
		} else {
			g.see(m>>1, asMember|asName)
		}
	}
	for _, d := range g.deferred[it.deferred.from:it.deferred.to] {
		if g.seen[d.name] != 0 {
			g.see(d.to, asMember|asName)
		} else {
			g.waiting[d.name] = append(g.waiting[d.name], d.to)
		}
	}
}

// see notes that a name is mentioned.
func (g *graph) see(id uint32, how uint8) {
	more := how &^ g.seen[id]
	g.seen[id] |= how
	if more&asMember != 0 {
		for _, to := range g.waiting[id] {
			g.see(to, asMember|asName)
		}
	}
	if more&asName != 0 {
		for n := g.first[id]; n != 0; n = g.links[n-1].next {
			g.visit(g.links[n-1].item)
		}
	}
}
