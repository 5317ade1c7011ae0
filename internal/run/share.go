package run

import (
	"context"
	"sync/atomic"
	"time"
)

// Slots bounds how many programs run at once, whoever starts them.
type Slots chan struct{}

// NewSlots makes room for n programs.
func NewSlots(n int) Slots { return make(Slots, n) }

type slotsKey struct{}

// WithSlots returns a context in which each program that Do starts takes a slot
// for as long as it runs.
func WithSlots(ctx context.Context, s Slots) context.Context {
	return context.WithValue(ctx, slotsKey{}, s)
}

// take waits for a slot of the context, if it has any.
func take(ctx context.Context) (release func(), err error) {
	s, ok := ctx.Value(slotsKey{}).(Slots)
	if !ok {
		return func() {}, nil
	}
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Meter adds up what programs have used.
type Meter struct{ cpu atomic.Int64 }

// CPU is the processor time of the programs that have ended, with their children.
func (m *Meter) CPU() time.Duration { return time.Duration(m.cpu.Load()) }

type meterKey struct{}

// WithMeter returns a context in which the programs that Do runs are metered.
func WithMeter(ctx context.Context, m *Meter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

func meter(ctx context.Context, r Result) {
	if m, ok := ctx.Value(meterKey{}).(*Meter); ok {
		m.cpu.Add(int64(r.User + r.Sys))
	}
}
