package cpptext

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDebugQuery(t *testing.T) {
	src := "/tmp/k/s6.12/linux-source-6.12/"
	// functions of headers
	for _, c := range []struct{ file, old, new string }{
		{"include/linux/list.h", "WRITE_ONCE(list->prev, list);", "WRITE_ONCE(list->prev, (list));"},
		{"include/linux/list.h", "first = head->next;\n\t\tlist_move_tail(first, head);", "first = head->next;\n\t\tlist_move_tail((first), head);"},
		{"include/linux/fs.h", "return sb->s_flags & SB_RDONLY;", "return (sb->s_flags & SB_RDONLY);"},
		{"include/linux/mm.h", "return folio_page_idx(page_folio(page), page);", "return folio_page_idx(page_folio(page), (page));"},
		{"include/linux/sched.h", "static inline int kstack_end(void *addr)\n{", "static inline int kstack_end(void *addr)\n{\n"},
		{"include/linux/sched.h", "struct wake_q_node {\n", "struct wake_q_node { int x;\n"},
		{"include/linux/bitmap.h", "if (small_const_nbits(nbits))\n\t\t*dst = *src1 | *src2;", "if (small_const_nbits(nbits))\n\t\t*dst = *src1 | (*src2);"},
		{"include/linux/skbuff.h", "return skb->len - skb->data_len;", "return (skb->len - skb->data_len);"},
		{"include/linux/skbuff.h", "static inline void __skb_queue_after(", "\nstatic inline void __skb_queue_after("},
		{"include/linux/string_helpers.h", "#define STRING_SIZE_MASK\t", "#define STRING_SIZE_MASK2\t"},
		{"include/linux/err.h", "return IS_ERR(ptr)", "return IS_ERR((ptr))"},
		{"include/linux/pagemap.h", "static inline void folio_attach_private(struct folio *folio, void *data)\n{", "static inline void folio_attach_private(struct folio *folio, void *data)\n{;"},
	} {
		old, err := os.ReadFile(src + c.file)
		if err != nil {
			t.Skip()
		}
		now := strings.Replace(string(old), c.old, c.new, 1)
		if now == string(old) {
			fmt.Println("NOT FOUND", c.file, c.old)
		}
		t0 := time.Now()
		ch, ok := Changes(old, []byte(now))
		fmt.Println(c.file, ok, ch.Names, len(ch.Rest), len(old), time.Since(t0))
		if !ok || len(ch.Names) == 0 {
			continue
		}
		q := NewQuery(ch.Names)
		t0 = time.Now()
		hits := map[string]Hits{}
		bytes := 0
		filepath.Walk(src+"include", func(p string, info os.FileInfo, err error) error {
			if strings.HasSuffix(p, ".h") && len(hits) < 4000 {
				b, _ := os.ReadFile(p)
				bytes += len(b)
				if strings.HasSuffix(p, c.file) {
					b = ch.Rest
				}
				hits[p] = q.Look(b)
			}
			return nil
		})
		fmt.Println("   look", len(hits), "files", bytes/1000, "kB", time.Since(t0))
		for _, unit := range []string{"kernel_fork", "mm_slub", "net_ipv4_tcp_input", "lib_string", "arch_x86_kernel_traps", "fs_ext4_inode"} {
			i, _ := os.ReadFile("/tmp/k/cpptext/" + unit + ".o.i")
			var files []Hits
			seen := map[string]bool{}
			var named []string
			for _, line := range strings.Split(string(i), "\n") {
				if strings.HasPrefix(line, "# ") {
					f := strings.Split(line, "\"")
					if len(f) < 2 || seen[f[1]] {
						continue
					}
					seen[f[1]] = true
					h, ok := hits[f[1]]
					if !ok {
						p := f[1]
						if !strings.HasPrefix(p, "/") {
							p = "/tmp/k/o6.12/" + p
						}
						b, err := os.ReadFile(p)
						if err != nil {
							continue
						}
						h = q.Look(b)
					}
					if h.named {
						named = append(named, filepath.Base(f[1]))
					}
					files = append(files, h)
				}
			}
			t0 := time.Now()
			sees := q.Sees(files)
			d := time.Since(t0)
			var np []Hits
			for _, h := range files {
				h.named = false
				np = append(np, h)
			}
			how := ""
			if q.Sees(np) {
				how = "pasted"
			}
			fmt.Println("   ", unit, len(files), "files", sees, named, how, d)
		}
	}
}
