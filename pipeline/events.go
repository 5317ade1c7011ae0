package pipeline

import "time"

// Events receives news of a running pipeline. Any field may be nil; none is
// called twice at once.
type Events struct {
	Step func(StepEvent)
	Unit func(UnitEvent)
	Note func(text string) // worth knowing, no fault
	Kept func(KeptEvent)
}

// StepEvent is a step that begins, or one that has more to say of itself.
type StepEvent struct {
	Name  string // one of BuildSteps, or "kernel" while that is made ready
	Text  string // for people
	Index int    // among the steps of a build, from 1; 0: it is none of them
	Total int    // of the steps of a build
}

// UnitEvent is a piece of work within the current step that begins or ends.
type UnitEvent struct {
	ID      int    // within the step: names need not be unique
	Name    string // the source file
	Done    int    // pieces of the step that have ended, this one among them if it has
	Total   int    // pieces of the step
	Ended   bool
	Elapsed time.Duration // of this piece; 0 if it has not ended
}

// KeptEvent is a work folder that stays when the build has ended.
type KeptEvent struct {
	Dir string
	// From is the step that a failed build can go on from; empty if it is done.
	From string
	// Edit says that the patch has to be changed first.
	Edit bool
}

// stepText is a step outside of a build.
func (e Events) stepText(text string) { e.step(StepEvent{Name: "kernel", Text: text}) }

func (e Events) step(s StepEvent) {
	if e.Step != nil {
		e.Step(s)
	}
}

func (e Events) unit(u UnitEvent) {
	if e.Unit != nil {
		e.Unit(u)
	}
}

func (e Events) note(text string) {
	if e.Note != nil {
		e.Note(text)
	}
}

func (e Events) kept(k KeptEvent) {
	if e.Kept != nil {
		e.Kept(k)
	}
}
