package pipeline

// Events receives news of a running pipeline. Any field may be nil; none is
// called twice at once.
type Events struct {
	Step func(text string)                  // a step begins
	Unit func(done, total int, name string) // a unit of the current step is done
	Note func(text string)                  // worth knowing, no fault
}

func (e Events) step(text string) {
	if e.Step != nil {
		e.Step(text)
	}
}

func (e Events) unit(done, total int, name string) {
	if e.Unit != nil {
		e.Unit(done, total, name)
	}
}

func (e Events) note(text string) {
	if e.Note != nil {
		e.Note(text)
	}
}
