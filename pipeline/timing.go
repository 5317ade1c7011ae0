package pipeline

import (
	"syscall"
	"time"
)

// Timing is what one step of a build cost.
type Timing struct {
	Step string
	Wall time.Duration
	CPU  time.Duration // of this process and of the programs that it ran
}

// stopwatch measures steps that follow one another.
type stopwatch struct {
	done  []Timing
	step  string
	start time.Time
	cpu   time.Duration
}

func (s *stopwatch) begin(step string) {
	s.stop()
	s.step, s.start, s.cpu = step, time.Now(), cpuTime()
}

func (s *stopwatch) stop() {
	if s.step != "" {
		s.done = append(s.done, Timing{s.step, time.Since(s.start), cpuTime() - s.cpu})
		s.step = ""
	}
}

func (s *stopwatch) end() []Timing {
	s.stop()
	return s.done
}

// cpuTime is the time that this process and its finished children have used.
func cpuTime() time.Duration {
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if syscall.Getrusage(who, &u) == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
