package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// explain shows the pod before and after as a diff, and the webhook's reason in
// its log and its metric.
func (d *demo) explain(ctx context.Context, before, after pod) error {
	was, err := before.plain()
	if err != nil {
		return err
	}
	is, err := after.plain()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path("pods"), 0o755); err != nil {
		return err
	}
	for name, content := range map[string]string{"before.yaml": was, "after.yaml": is} {
		if err := os.WriteFile(d.path("pods", name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	text, err := difference(was, is, "pod without the label\t"+before.name(), "pod with the label\t"+after.name())
	if err != nil {
		return err
	}
	d.screen.diff(text)
	d.screen.say("")
	why, err := reasons(after)
	if err != nil {
		return err
	}
	d.screen.say("Why:\n%s", why)
	d.screen.say("")
	logged, err := d.reviewed(after)
	if err != nil {
		return err
	}
	d.screen.say("The webhook's log:\n%s", logged)
	d.screen.say("")
	d.screen.say("Its metric:\n  %s", d.admissions(ctx))
	return nil
}

// reasons says in sentences what the pod's status says.
func reasons(p pod) (string, error) {
	var status struct {
		Mode, Profile, Delivery, Container, CertDir string
		Warnings                                    []string
	}
	if err := json.Unmarshal([]byte(p.text("metadata", "annotations", "isthmus.dev/status")), &status); err != nil {
		return "", fmt.Errorf("status of pod %s: %w", p.name(), err)
	}
	text := fmt.Sprintf("  namespace %s is labelled isthmus.dev/injection=enabled, and the pod says nothing to the contrary\n"+
		"  profile %s recognises container %s (%s) as an edge\n"+
		"  mode %s, delivery %s: the edge reads its certificate in %s\n"+
		"  its identity will be spiffe://%s/ns/%s/sa/%s",
		p.text("metadata", "namespace"), status.Profile, status.Container, p.image(status.Container),
		status.Mode, status.Delivery, status.CertDir,
		p.env("istio-proxy", "TRUST_DOMAIN"), p.text("metadata", "namespace"), p.text("spec", "serviceAccountName"))
	if len(status.Warnings) > 0 {
		text += "\n  warnings: " + strings.Join(status.Warnings, ", ") + " (docs/troubleshooting.md says what to do)"
	}
	return text, nil
}

// review is a line of the webhook's log.
type review struct {
	Message   string   `json:"msg"`
	Namespace string   `json:"namespace"`
	Pod       string   `json:"pod"`
	Outcome   string   `json:"outcome"`
	Reason    string   `json:"reason"`
	Profile   string   `json:"profile"`
	Mode      string   `json:"mode"`
	Warnings  []string `json:"warnings"`
}

// reviewed finds the line of the log that tells of a pod. The pod had no name
// yet when it was reviewed, only the one that its name begins with.
func (d *demo) reviewed(p pod) (string, error) {
	log, err := os.Open(d.path(webhookName + ".log"))
	if err != nil {
		return "", err
	}
	defer func() { _ = log.Close() }()
	lines := bufio.NewScanner(log)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r review
		if json.Unmarshal(lines.Bytes(), &r) != nil || r.Message != "reviewed pod" || !strings.HasPrefix(p.name(), r.Pod) {
			continue
		}
		warnings := "none"
		if len(r.Warnings) > 0 {
			warnings = strings.Join(r.Warnings, ", ")
		}
		return fmt.Sprintf("  namespace %s, pod %s: %s, reason %s, profile %s, mode %s, warnings %s",
			r.Namespace, r.Pod, r.Outcome, r.Reason, r.Profile, r.Mode, warnings), lines.Err()
	}
	return "", fmt.Errorf("the webhook's log does not tell of pod %s", p.name())
}

// admissions are the lines of the webhook's metric.
func (d *demo) admissions(ctx context.Context) string {
	return d.metric(ctx, webhookName, "isthmus_admission_total")
}

// metric are the lines of a process's metrics that begin like this.
func (d *demo) metric(ctx context.Context, name, beginning string) string {
	page, err := get(ctx, fmt.Sprintf("http://127.0.0.1:%d/metrics", d.process(name).Metrics))
	if err != nil {
		return err.Error()
	}
	var found []string
	for line := range strings.SplitSeq(page, "\n") {
		if strings.HasPrefix(line, beginning) {
			found = append(found, line)
		}
	}
	if len(found) == 0 {
		return beginning + " has counted nothing"
	}
	return strings.Join(found, "\n  ")
}

// invite says what to try.
func (d *demo) invite() {
	d.screen.print(fmt.Sprintf(`
Try it, in this folder:

  export KUBECONFIG=%s
  export PATH=%s:$PATH

  kubectl -n emissary get pods -L isthmus.dev/injected
  kubectl apply -f samples/pods/opt-out.yaml        # a pod that says no: it stays as it is
  kubectl apply -f samples/pods/opt-in.yaml         # a pod that asks for itself, without a label on its namespace
  kubectl apply -f samples/pods/wrong-mode.yaml     # a mode that there is not: denied, with the reason
  isthmus inject -f samples/emissary/deployment.yaml -o diff   # the same engine, offline
  kubectl -n emissary describe secret istio-certs   # never shows the key
  kubectl -n emissary events --for secret/istio-certs
  less +F %s
  less +F %s

  make demo-down                                    # ends it`, d.kubeconfig(), d.path("bin"), d.path(webhookName+".log"), d.path(controllerName+".log")))
}
