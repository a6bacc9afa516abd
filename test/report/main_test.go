package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"start","Package":"gateway/a"}
{"Action":"run","Package":"gateway/a","Test":"TestGood"}
{"Action":"output","Package":"gateway/a","Test":"TestGood","Output":"=== RUN   TestGood\n"}
{"Action":"output","Package":"gateway/a","Test":"TestGood","Output":"    a_test.go:3: chatter\n"}
{"Action":"pass","Package":"gateway/a","Test":"TestGood","Elapsed":0.5}
{"Action":"output","Package":"gateway/a","Test":"TestBad","Output":"=== RUN   TestBad\n"}
{"Action":"output","Package":"gateway/a","Test":"TestBad","Output":"    a_test.go:9: two is not three\n"}
{"Action":"fail","Package":"gateway/a","Test":"TestBad","Elapsed":0.1}
{"Action":"output","Package":"gateway/a","Test":"TestAbsent","Output":"=== RUN   TestAbsent\n"}
{"Action":"output","Package":"gateway/a","Test":"TestAbsent","Output":"    a_test.go:5: looked around\n"}
{"Action":"output","Package":"gateway/a","Test":"TestAbsent","Output":"    a_test.go:6: no camera here:\n"}
{"Action":"output","Package":"gateway/a","Test":"TestAbsent","Output":"        plug one in\n"}
{"Action":"output","Package":"gateway/a","Test":"TestAbsent","Output":"--- SKIP: TestAbsent (0.00s)\n"}
{"Action":"skip","Package":"gateway/a","Test":"TestAbsent","Elapsed":0}
{"Action":"output","Package":"gateway/a","Test":"TestHangs","Output":"    a_test.go:8: waiting\n"}
{"Action":"output","Package":"gateway/a","Output":"FAIL\tgateway/a\t0.612s\n"}
{"Action":"fail","Package":"gateway/a","Elapsed":0.6}
not json at all
{"ImportPath":"gateway/b","Action":"build-output","Output":"b.go:1: undefined: x\n"}
{"Action":"fail","Package":"gateway/b","Elapsed":0}
{"Action":"output","Package":"gateway/r","Test":"TestCalm","Output":"WARNING: DATA RACE\n"}
{"Action":"output","Package":"gateway/r","Test":"TestCalm","Output":"  who wrote it\n"}
{"Action":"pass","Package":"gateway/r","Test":"TestCalm","Elapsed":0.1}
{"Action":"output","Package":"gateway/r","Test":"TestRaces","Output":"    testing.go:1712: race detected during execution of test\n"}
{"Action":"fail","Package":"gateway/r","Test":"TestRaces","Elapsed":0.1}
{"Action":"fail","Package":"gateway/r","Elapsed":0.6}
{"Action":"output","Package":"gateway/c","Output":"?   \tgateway/c\t[no test files]\n"}
{"Action":"skip","Package":"gateway/c","Elapsed":0}
`

func TestShowsEveryTestAndWhyItFailedOrWasSkipped(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var out strings.Builder
	if err := run(strings.NewReader(events), &out, path); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"PASS TestGood",
		"FAIL TestBad",
		"two is not three",
		"FAIL TestHangs did not end",
		"FAIL\tgateway/a\t0.612s\n",
		"not json at all\n",
		"b.go:1: undefined: x\n",
		"skipped:\n  gateway/a TestAbsent: no camera here: plug one in\n",
		"  who wrote it\n",
		"\n2 passed, 5 failed, 1 skipped\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, &out)
		}
	}
	for _, unwanted := range []string{"chatter", "no test files", "=== RUN   TestGood"} {
		if strings.Contains(out.String(), unwanted) {
			t.Errorf("the report has %q:\n%s", unwanted, &out)
		}
	}
	log, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"skip\tgateway/a\tTestAbsent\tno camera here: plug one in\t0.00\n",
		"fail\tgateway/a\tTestBad\t\t0.10\n",
		"fail\tgateway/a\tTestHangs\tdid not end\t0.00\n",
		"fail\tgateway/b\t-\tdid not end\t0.00\n",
		"fail\tgateway/r\t-\tdata race\t0.00\n",
	} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}
