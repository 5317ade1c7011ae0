package pipeline

import (
	"encoding/json"
	"reflect"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// TestSavedSelection: a field that is not saved would be lost when a build goes
// on, and units with it.
func TestSavedSelection(t *testing.T) {
	var want selection
	fillIn(reflect.ValueOf(&want).Elem())
	data, err := json.Marshal(want.saved())
	if err != nil {
		t.Fatal(err)
	}
	var saved savedSelection
	if err := json.Unmarshal(data, &saved); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&want, saved.selection(), cmp.AllowUnexported(selection{})); d != "" {
		t.Errorf("a selection is not what was saved (-was +is):\n%s", d)
	}
}

// TestSavedFile is the same of what the choice of units settles of a file.
func TestSavedFile(t *testing.T) {
	var want touched
	fillIn(reflect.ValueOf(&want).Elem())
	got := want
	got.edits, got.pinned = nil, nil
	if !got.takes(want.saved()) {
		t.Fatal("another file")
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(touched{})); d != "" {
		t.Errorf("a file is not what was saved (-was +is):\n%s", d)
	}
}

// fillIn sets everything in a value to something that is not zero.
func fillIn(v reflect.Value) {
	if !v.CanSet() {
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fillIn(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillIn(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fillIn(key)
		fillIn(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillIn(v.Elem())
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8, reflect.Uint64:
		v.SetUint(7)
	default:
		panic("what is a " + v.Kind().String() + " that is not zero?")
	}
}
