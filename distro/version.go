package distro

import "strings"

// Debian's version order, deb-version(7), "Sorting algorithm": epochs compare
// as numbers, then upstream version and revision each compare as alternating
// parts without and with digits. In a part without digits "~" sorts before the
// end, the end before letters, letters before everything else.

// CompareVersions compares two Debian package versions: negative if a is
// older, 0 if they are the same, positive if a is newer.
func CompareVersions(a, b string) int {
	ae, au, ar := splitVersion(a)
	be, bu, br := splitVersion(b)
	for _, pair := range [][2]string{{ae, be}, {au, bu}, {ar, br}} {
		if c := comparePart(pair[0], pair[1]); c != 0 {
			return c
		}
	}
	return 0
}

func splitVersion(v string) (epoch, upstream, revision string) {
	epoch, upstream = "0", v
	if i := strings.IndexByte(v, ':'); i >= 0 {
		epoch, upstream = v[:i], v[i+1:]
	}
	revision = "0"
	if i := strings.LastIndexByte(upstream, '-'); i >= 0 {
		upstream, revision = upstream[:i], upstream[i+1:]
	}
	return epoch, upstream, revision
}

func comparePart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !isDigit(a[0])) || (b != "" && !isDigit(b[0])) {
			if c := charOrder(a) - charOrder(b); c != 0 {
				return c
			}
			a, b = a[1:], b[1:] // equal and not both ended: both have a character
		}
		var na, nb string
		na, a = cutNumber(a)
		nb, b = cutNumber(b)
		if len(na) != len(nb) {
			return len(na) - len(nb)
		}
		if c := strings.Compare(na, nb); c != 0 {
			return c
		}
	}
	return 0
}

// charOrder is the weight of the first character of s; a digit weighs as much
// as the end, because it ends the part.
func charOrder(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case s[0] >= 'a' && s[0] <= 'z' || s[0] >= 'A' && s[0] <= 'Z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

// cutNumber splits off leading digits, returned without leading zeros.
func cutNumber(s string) (number, rest string) {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return strings.TrimLeft(s[:i], "0"), s[i:]
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
