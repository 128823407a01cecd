package policy

import "fmt"

// Restart says whether the controller is asked to restart a workload with these
// annotations when its pods are stale; the workload's own word wins over its
// namespace's. A value that is neither "true" nor "false" asks for nothing, and
// problem says so in a sentence; it is empty otherwise.
func Restart(workload map[string]string, ns Namespace) (asks bool, problem string) {
	owner := ""
	value, given := workload[RestartKey]
	if !given {
		if value, given = ns.Annotations[RestartKey]; !given {
			return false, ""
		}
		owner = "of namespace " + ns.Name + " "
	}
	if value != "true" && value != "false" {
		return false, fmt.Sprintf(`annotation %s%s: %q is not allowed; want "true" or "false"`, owner, RestartKey, value)
	}
	return value == "true", ""
}
