package policy

// WantsRestart reports whether a workload with these annotations asks the controller
// to restart it when its pods are stale. The workload's annotation wins over its
// namespace's. A value that is neither "true" nor "false" requests no restart, and
// problem describes it in a sentence; otherwise problem is empty.
func WantsRestart(workloadAnnotations map[string]string, ns Namespace) (wants bool, problem string) {
	owner := ""
	value, isSet := workloadAnnotations[RestartKey]
	if !isSet {
		if value, isSet = ns.Annotations[RestartKey]; !isSet {
			return false, ""
		}
		owner = "namespace " + ns.Name + ": "
	}
	if value != "true" && value != "false" {
		return false, owner + "annotation " + notAllowed(RestartKey, value, `want "true" or "false"`)
	}
	return value == "true", ""
}
