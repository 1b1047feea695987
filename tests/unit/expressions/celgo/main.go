// Reads JSON lines {"expr": text, "vars": {...}} and prints what cel-go makes of each.
//
// Each answer is {"checked": type or "", "value": tagged value} or {"checked": …, "error": text}. Values are tagged with their CEL type, so
// that 1, 1u and 1.0 stay apart; variables come in tagged the same way.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
)

type request struct {
	Expr string         `json:"expr"`
	Vars map[string]any `json:"vars"`
}

type answer struct {
	Checked string `json:"checked"`
	Value   any    `json:"value,omitempty"`
	Error   string `json:"error,omitempty"`
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return
		}
		var asked request
		if err := json.Unmarshal(line, &asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := encoder.Encode(evaluate(asked)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		out.Flush()
	}
}

func evaluate(asked request) (found answer) {
	defer func() {
		if trouble := recover(); trouble != nil {
			found.Error = fmt.Sprint(trouble)
		}
	}()
	options := []cel.EnvOption{
		cel.CrossTypeNumericComparisons(true), ext.Strings(), ext.Math(), cel.ASTValidators(
			cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals()),
		cel.EnableIdentifierEscapeSyntax(), cel.DefaultUTCTimeZone(true),
	}
	values := map[string]any{}
	for name, value := range asked.Vars {
		options = append(options, cel.Variable(name, cel.DynType))
		values[name] = types.DefaultTypeAdapter.NativeToValue(untag(value))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return answer{Error: err.Error()}
	}
	parsed, issues := env.Parse(asked.Expr)
	if issues.Err() != nil {
		return answer{Error: "parse: " + issues.Err().Error()}
	}
	checked, issues := env.Check(parsed)
	tree := parsed
	if issues.Err() == nil {
		found.Checked = checked.OutputType().String()
		tree = checked
	}
	program, err := env.Program(tree)
	if err != nil {
		found.Error = "program: " + err.Error()
		return found
	}
	value, _, err := program.Eval(values)
	if err != nil {
		found.Error = err.Error()
		return found
	}
	found.Value = tag(value)
	return found
}

func untag(value any) any {
	pair, ok := value.([]any)
	if !ok {
		panic(fmt.Sprintf("not a tagged value: %v", value))
	}
	kind := pair[0].(string)
	switch kind {
	case "null":
		return nil
	case "bool":
		return pair[1].(bool)
	case "int":
		number, err := strconv.ParseInt(pair[1].(string), 10, 64)
		must(err)
		return number
	case "uint":
		number, err := strconv.ParseUint(pair[1].(string), 10, 64)
		must(err)
		return number
	case "double":
		number, err := strconv.ParseFloat(pair[1].(string), 64)
		must(err)
		return number
	case "string":
		return pair[1].(string)
	case "bytes":
		raw, err := base64.StdEncoding.DecodeString(pair[1].(string))
		must(err)
		return raw
	case "timestamp":
		moment, err := time.Parse(time.RFC3339Nano, pair[1].(string))
		must(err)
		return moment
	case "duration":
		micros, err := strconv.ParseInt(pair[1].(string), 10, 64)
		must(err)
		return time.Duration(micros) * time.Microsecond
	case "list":
		items := []any{}
		for _, item := range pair[1].([]any) {
			items = append(items, untag(item))
		}
		return items
	case "map":
		entries := map[string]any{}
		for _, entry := range pair[1].([]any) {
			both := entry.([]any)
			entries[untag(both[0]).(string)] = untag(both[1])
		}
		return entries
	}
	panic("unknown tag " + kind)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func tag(value ref.Val) any {
	switch found := value.(type) {
	case types.Null:
		return []any{"null", nil}
	case types.Bool:
		return []any{"bool", bool(found)}
	case types.Int:
		return []any{"int", strconv.FormatInt(int64(found), 10)}
	case types.Uint:
		return []any{"uint", strconv.FormatUint(uint64(found), 10)}
	case types.Double:
		return []any{"double", strconv.FormatFloat(float64(found), 'g', -1, 64)}
	case types.String:
		return []any{"string", string(found)}
	case types.Bytes:
		return []any{"bytes", base64.StdEncoding.EncodeToString([]byte(found))}
	case types.Timestamp:
		return []any{"timestamp", found.Time.UTC().Format(time.RFC3339Nano)}
	case types.Duration:
		return []any{"duration", strconv.FormatInt(found.Duration.Nanoseconds(), 10)}
	case *types.Type:
		return []any{"type", found.TypeName()}
	case traits.Mapper:
		entries := []any{}
		for iterator := found.Iterator(); iterator.HasNext() == types.True; {
			key := iterator.Next()
			entries = append(entries, []any{tag(key), tag(found.Get(key))})
		}
		return []any{"map", entries}
	case traits.Lister:
		items := []any{}
		for iterator := found.Iterator(); iterator.HasNext() == types.True; {
			items = append(items, tag(iterator.Next()))
		}
		return []any{"list", items}
	}
	return []any{"other", fmt.Sprint(value)}
}
