package distro

import (
	"os/exec"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	tests := []struct {
		a, b string
		want int // sign
	}{
		{"1", "1", 0},
		{"1.0", "1.00", 0},
		{"1.0", "1.0-0", 0},
		{"0:1.0", "1.0", 0},
		{"6.1.170-3", "6.1.170-3", 0},
		{"6.1.170-3", "6.1.170-10", -1},
		{"6.1.176-1", "6.1.170-3", 1},
		{"6.12.117-1~deb12u1", "6.12.117-1", -1},
		{"6.12.117-1~deb12u1", "6.12.117-1~deb12u2", -1},
		{"6.12.117-1~bpo12+1", "6.12.117-1~deb12u1", -1},
		{"6.12.9-1", "6.12.117-1", -1},
		{"6.12.1-1", "6.1.999-1", 1},
		{"7.0~rc5-1~exp1", "7.0-1", -1},
		{"7.0~rc5-1", "7.0~rc10-1", -1},
		{"6.12.90+deb13", "6.12.90+deb13.1", -1},
		{"1:1.0", "2.0", 1},
		{"1.0~~", "1.0~", -1},
		{"1.0~~a", "1.0~", -1},
		{"1.0a", "1.0", 1},
		{"1.0a", "1.0+", -1},
		{"1.0a", "1.0b", -1},
		{"1.0-1", "1.0.1", -1},
		{"1-2-3", "1-3", 1},
		{"1.09", "1.9", 0},
		{"1.18446744073709551617", "1.2", 1},
		{"", "1", -1},
		{"", "~", 1},
	}
	dpkg, _ := exec.LookPath("dpkg")
	sign := func(n int) int { return min(1, max(-1, n)) }
	for _, tt := range tests {
		if got := sign(CompareVersions(tt.a, tt.b)); got != tt.want {
			t.Errorf("CompareVersions(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
		if got := sign(CompareVersions(tt.b, tt.a)); got != -tt.want {
			t.Errorf("CompareVersions(%q, %q) = %d, want %d", tt.b, tt.a, got, -tt.want)
		}
		if dpkg == "" || tt.a == "" || tt.b == "~" {
			continue // dpkg gives the empty version a meaning of its own
		}
		op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[tt.want]
		if err := exec.Command(dpkg, "--compare-versions", tt.a, op, tt.b).Run(); err != nil {
			t.Errorf("dpkg --compare-versions %s %s %s: %v", tt.a, op, tt.b, err)
		}
	}
}
