package main

import "testing"

func TestChooseMapping(t *testing.T) {
	newMapping := func(service, prefix string, weight int) *mapping {
		m := &mapping{}
		m.Spec.Service, m.Spec.Prefix, m.Spec.Weight = service, prefix, weight
		return m
	}
	root, v1, v2, v3 := newMapping("root", "/", 0), newMapping("v1", "/reviews/", 0), newMapping("v2", "/reviews/", 30), newMapping("v3", "/reviews/", 20)
	for name, test := range map[string]struct {
		all  []*mapping
		path string
		want map[string]int // of a hundred
	}{
		"if one has the prefix, expect it":                           {[]*mapping{v1}, "/reviews/0", map[string]int{"v1": 100}},
		"if none has the prefix, expect none":                        {[]*mapping{v1}, "/ratings/0", map[string]int{"": 100}},
		"if one has a longer prefix, expect it":                      {[]*mapping{root, v1}, "/reviews/0", map[string]int{"v1": 100}},
		"if the longer prefix comes first, expect it":                {[]*mapping{v1, root}, "/reviews/0", map[string]int{"v1": 100}},
		"if the longer prefix does not match, expect the shorter":    {[]*mapping{root, v1}, "/ratings/0", map[string]int{"root": 100}},
		"if one has a weight, expect the rest for the other":         {[]*mapping{v1, v3}, "/reviews/0", map[string]int{"v1": 80, "v3": 20}},
		"if two have weights, expect the rest for the third":         {[]*mapping{v3, v1, v2}, "/reviews/0", map[string]int{"v1": 50, "v2": 30, "v3": 20}},
		"if the weights are below 100, expect the rest for the last": {[]*mapping{v2, v3}, "/reviews/0", map[string]int{"v2": 30, "v3": 70}},
	} {
		t.Run(name, func(t *testing.T) {
			got := map[string]int{}
			for percentile := range 100 {
				service := ""
				if m := chooseMapping(test.all, test.path, percentile, func(int) int { return 0 }); m != nil {
					service = m.Spec.Service
				}
				got[service]++
			}
			if len(got) != len(test.want) {
				t.Fatalf("got %v, want %v", got, test.want)
			}
			for service, count := range test.want {
				if got[service] != count {
					t.Errorf("got %v, want %v", got, test.want)
				}
			}
		})
	}
}
