package kbuild

// SpecialReaders returns units that may read a file (tree-relative) and that no
// livepatch can hold: assembly, vDSO, boot code. Cache is as for Readers.
func (t *Tree) SpecialReaders(file, cache string) ([]Unit, error) {
	if t.db == nil {
		units, err := t.Readers(file, cache)
		var special []Unit
		for _, u := range units {
			if u.Special() != "" {
				special = append(special, u)
			}
		}
		return special, err
	}
	b := newGraphBuilder(t)
	b.addUnits(t, func(u Unit) bool { return u.Special() != "" })
	g, err := b.build()
	if err != nil {
		return nil, err
	}
	return g.Readers(file), nil
}
