package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/klpc/klpc/cache"
	"github.com/klpc/klpc/pipeline"
)

// cacheOptions are the flags of klpc cache.
type cacheOptions struct {
	limit byteSize
	trim  bool // to limit, which was given
	clear bool
	json  bool
}

func newCache(a *app, f func(*app, cacheOptions) error) *cobra.Command {
	var o cacheOptions
	cmd := &cobra.Command{
		Use:   "cache [flags]",
		Short: "Show or clear the cache of compile results",
		Long: `cache shows where klpc keeps compiled objects and preprocessed texts, and how much
room they take. klpc build uses them instead of running the compiler when the
command, the compiler and the content of every file read are the same. Of what
exceeds --cache-size, that which has not been used for longest goes first.`,
		Example: `  klpc cache
  # make it smaller now; later builds need the same --cache-size
  klpc cache --cache-size 1G
  klpc cache --clear`,
		Args: exactly(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.trim = cmd.Flags().Changed("cache-size")
			return f(a, o)
		},
	}
	cacheSizeFlag(cmd, &o.limit)
	cmd.Flags().BoolVar(&o.clear, "clear", false, "remove everything in the cache")
	cmd.Flags().BoolVar(&o.json, "json", false, "print the result as one JSON document")
	return cmd
}

func runCache(a *app, o cacheOptions) error {
	dir, err := pipeline.CacheDir()
	if err != nil {
		return err
	}
	store, err := cache.Open(pipeline.CompileCacheDir(dir), int64(o.limit))
	if err != nil {
		return err
	}
	switch {
	case o.clear:
		err = store.Clear()
	case o.trim:
		err = store.Trim()
	}
	st, statErr := store.Stats()
	if err := errors.Join(err, statErr); err != nil {
		return err
	}
	if o.json {
		return printJSON(a.out, st)
	}
	w := tabwriter.NewWriter(a.out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "folder\t%s\n", st.Dir)
	fmt.Fprintf(w, "size\t%s\n", byteSize(st.Bytes).text())
	fmt.Fprintf(w, "limit\t%s\n", o.limit.text())
	fmt.Fprintf(w, "commands\t%d\n", st.Commands)
	fmt.Fprintf(w, "results\t%d\n", st.Results)
	return w.Flush()
}

// cacheSizeFlag adds the flag that bounds the cache of compile results.
func cacheSizeFlag(cmd *cobra.Command, size *byteSize) {
	*size = pipeline.DefaultCacheSize
	cmd.Flags().Var(size, "cache-size", "keep at most `SIZE` bytes of compile results, as 500M or 5G; 0: none")
}

// byteSize is a flag's number of bytes, with K, M, G or T for powers of 1024.
type byteSize int64

const byteUnits = "KMGT"

// Set reads 500M, 500MiB or 524288000.
func (b *byteSize) Set(text string) error {
	digits := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(text), "B"), "I")
	shift := 0
	if n := len(digits); n > 0 {
		if unit := strings.IndexByte(byteUnits, digits[n-1]); unit >= 0 {
			shift, digits = 10*(unit+1), digits[:n-1]
		}
	}
	v, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || v < 0 || v > math.MaxInt64>>shift {
		return errors.New("give a size such as 500M or 5G")
	}
	*b = byteSize(v << shift)
	return nil
}

// String is the form that Set reads, without loss.
func (b *byteSize) String() string {
	v, unit := int64(*b), ""
	for i := 0; i < len(byteUnits) && v > 0 && v%1024 == 0; i++ {
		v, unit = v/1024, byteUnits[i:i+1]
	}
	return strconv.FormatInt(v, 10) + unit
}

// Type is the flag's type in usage texts.
func (*byteSize) Type() string { return "size" }

// text is the size for people, rounded.
func (b byteSize) text() string {
	v, unit := float64(b), ""
	for i := 0; i < len(byteUnits) && v >= 1024; i++ {
		v, unit = v/1024, byteUnits[i:i+1]+"i"
	}
	if unit == "" {
		return fmt.Sprintf("%d B", int64(b))
	}
	return fmt.Sprintf("%.1f %sB", v, unit)
}
