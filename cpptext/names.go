package cpptext

import "bytes"

// FNV-1a.
const (
	hashStart = 2166136261
	hashPrime = 16777619
)

// names numbers identifiers. The first numbers are those of the keywords.
type names struct {
	table []uint32 // number plus one, by hash; 0: free
	hash  []uint32 // by number
	text  [][]byte // by number; slices of the texts
}

// newNames makes room for about size/2 identifiers at first; size is a power of 2.
func newNames(size int) *names {
	n := &names{table: make([]uint32, size)}
	for _, k := range keywords {
		n.intern([]byte(k.text), hashOf([]byte(k.text)))
	}
	return n
}

// intern returns the number of an identifier. b must not change afterwards.
func (n *names) intern(b []byte, h uint32) uint32 {
	mask := uint32(len(n.table) - 1)
	i := (h ^ h>>15) & mask
	for n.table[i] != 0 {
		id := n.table[i] - 1
		if n.hash[id] == h && bytes.Equal(n.text[id], b) {
			return id
		}
		i = (i + 1) & mask
	}
	id := uint32(len(n.text))
	n.table[i] = id + 1
	n.hash = append(n.hash, h)
	n.text = append(n.text, b)
	if len(n.text)*2 > len(n.table) {
		n.grow()
	}
	return id
}

func (n *names) grow() {
	n.table = make([]uint32, 2*len(n.table))
	mask := uint32(len(n.table) - 1)
	for id, h := range n.hash {
		i := (h ^ h>>15) & mask
		for n.table[i] != 0 {
			i = (i + 1) & mask
		}
		n.table[i] = uint32(id) + 1
	}
}

// word is the meaning of an identifier.
type word uint8

const (
	notKeyword word = iota
	kwAsm
	kwAttribute
	kwStaticAssert
	kwExtension
	kwStatic
	kwExtern
	kwTypedef
	kwInline
	kwRegister
	kwVolatile
	kwQualifier // and storage classes that change nothing here
	kwStruct
	kwEnum
	kwTypeof
	kwAlignas
	kwType
	kwOther
)

// keywords are the identifiers with a meaning of their own. Their index is
// their number.
var keywords = []struct {
	text string
	word word
}{
	{"asm", kwAsm}, {"__asm", kwAsm}, {"__asm__", kwAsm},
	{"__attribute__", kwAttribute}, {"__attribute", kwAttribute},
	{"_Static_assert", kwStaticAssert},
	{"__extension__", kwExtension},
	{"static", kwStatic}, {"extern", kwExtern}, {"typedef", kwTypedef},
	{"inline", kwInline}, {"__inline", kwInline}, {"__inline__", kwInline},
	{"register", kwRegister},
	{"volatile", kwVolatile}, {"__volatile", kwVolatile}, {"__volatile__", kwVolatile},
	{"auto", kwQualifier}, {"__thread", kwQualifier}, {"_Thread_local", kwQualifier}, {"_Noreturn", kwQualifier},
	{"const", kwQualifier}, {"__const", kwQualifier}, {"__const__", kwQualifier},
	{"restrict", kwQualifier}, {"__restrict", kwQualifier}, {"__restrict__", kwQualifier},
	{"struct", kwStruct}, {"union", kwStruct}, {"enum", kwEnum},
	{"typeof", kwTypeof}, {"__typeof", kwTypeof}, {"__typeof__", kwTypeof}, {"_Atomic", kwTypeof},
	{"_Alignas", kwAlignas},
	{"void", kwType}, {"char", kwType}, {"short", kwType}, {"int", kwType}, {"long", kwType}, {"float", kwType}, {"double", kwType},
	{"signed", kwType}, {"__signed", kwType}, {"__signed__", kwType}, {"unsigned", kwType}, {"_Bool", kwType},
	{"_Complex", kwType}, {"__complex__", kwType}, {"__int128", kwType}, {"__auto_type", kwType},
	{"sizeof", kwOther}, {"_Alignof", kwOther}, {"__alignof", kwOther}, {"__alignof__", kwOther},
	{"if", kwOther}, {"else", kwOther}, {"while", kwOther}, {"do", kwOther}, {"for", kwOther}, {"return", kwOther},
	{"switch", kwOther}, {"case", kwOther}, {"default", kwOther}, {"break", kwOther}, {"continue", kwOther}, {"goto", kwOther},
	{"_Generic", kwOther}, {"__label__", kwOther}, {"__builtin_offsetof", kwOther},
}

// wordOf is the meaning of the identifier with a number.
func wordOf(id uint32) word {
	if id < uint32(len(keywords)) {
		return keywords[id].word
	}
	return notKeyword
}
