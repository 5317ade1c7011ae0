package modname

import "testing"

func TestCanonical(t *testing.T) {
	for name, want := range map[string]string{
		"":                      "",
		"dummy":                 "dummy",
		"livepatch-fix_it-2":    "livepatch_fix_it_2",
		"snd-hda-codec,snd-pcm": "snd_hda_codec,snd_pcm",
	} {
		if got := Canonical(name); got != want {
			t.Errorf("Canonical(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestOfPath(t *testing.T) {
	for path, want := range map[string]string{
		"":                             "",
		"vmlinux":                      "vmlinux",
		"virtio-rng":                   "virtio_rng",
		"drivers/char/hw-random/x-rng": "x_rng",
	} {
		if got := OfPath(path); got != want {
			t.Errorf("OfPath(%q) = %q, want %q", path, got, want)
		}
	}
}
