// Command local-disk makes the cluster's volumes: a folder on this machine for each claim, removed with the claim.
//
// The volumes are of the kind `local`, bound to this node. For those Kubernetes gives the folder to the pod's fsGroup,
// so that a pod which runs as an ordinary person may write there and needs no container of root's. (It does not for
// volumes of the kind hostPath.) The claimed size is not enforced.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "hangang.example/local-disk"

// localDisk makes and removes folders directly under one folder of this node.
type localDisk struct {
	folder string
	node   string
}

func (disk localDisk) Provision(_ context.Context, options controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	if options.SelectedNodeName != "" && options.SelectedNodeName != disk.node {
		return nil, controller.ProvisioningReschedule, fmt.Errorf("the disk is on node %s only, not on %s", disk.node, options.SelectedNodeName)
	}
	if options.PVC.Spec.Selector != nil {
		return nil, controller.ProvisioningFinished, fmt.Errorf("claims with a selector are not served")
	}
	folder := filepath.Join(disk.folder, options.PVName)
	// Group and mode are set when a pod with an fsGroup mounts it.
	if err := os.MkdirAll(folder, 0o770); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	mode := core.PersistentVolumeFilesystem
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   options.PVC.Spec.AccessModes,
			VolumeMode:                    &mode,
			Capacity:                      core.ResourceList{core.ResourceStorage: options.PVC.Spec.Resources.Requests[core.ResourceStorage]},
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: folder}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{{
					Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{disk.node},
				}},
			}}}},
		},
	}, controller.ProvisioningFinished, nil
}

func (disk localDisk) Delete(_ context.Context, volume *core.PersistentVolume) error {
	if volume.Spec.Local == nil || filepath.Dir(volume.Spec.Local.Path) != disk.folder || !strings.HasPrefix(filepath.Base(volume.Spec.Local.Path), "pvc-") {
		return &controller.IgnoredError{Reason: "its folder is not one of this disk's"}
	}
	return os.RemoveAll(volume.Spec.Local.Path)
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the cluster")
	folder := flag.String("folder", "", "where the volumes' folders are made")
	node := flag.String("node", "", "the name of this node")
	flag.Parse()
	if err := run(*kubeconfig, filepath.Clean(*folder), *node); err != nil {
		fmt.Fprintln(os.Stderr, "local-disk:", err)
		os.Exit(1)
	}
}

func run(kubeconfig, folder, node string) error {
	if !filepath.IsAbs(folder) || node == "" {
		return fmt.Errorf("-folder (an absolute path) and -node are needed")
	}
	// Folders are made with exactly the mode asked for.
	syscall.Umask(0)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx = klog.NewContext(ctx, klog.Background())
	provisioner := controller.NewProvisionController(ctx, client, provisionerName, localDisk{folder, node},
		controller.LeaderElection(false),
		controller.FailedProvisionThreshold(0),
		controller.FailedDeleteThreshold(0),
		controller.MetricsPort(0),
	)
	go provisioner.Run(ctx)
	<-ctx.Done()
	return nil
}
