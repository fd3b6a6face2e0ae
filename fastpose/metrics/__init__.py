"""Metrics as named protocols: key points (PCK, PCKh, OKS-AP), generated images (SSIM, LPIPS, IS, FID), persons found
again (mAP), user studies; results and their table."""

from fastpose.metrics import (
    accumulate,
    generative,
    heatmaps,
    image,
    keypoints_2d,
    lpips,
    oks,
    pose_transfer,
    protocols,
    reid,
    report,
    study,
)
from fastpose.metrics.accumulate import PCKAccumulator
from fastpose.metrics.generative import GenerativeAccumulator
from fastpose.metrics.image import ImageAccumulator
from fastpose.metrics.pose_transfer import DetectionScore, TransferPCKh
from fastpose.metrics.report import Result

__all__ = [
    "DetectionScore",
    "GenerativeAccumulator",
    "ImageAccumulator",
    "PCKAccumulator",
    "Result",
    "TransferPCKh",
    "accumulate",
    "generative",
    "heatmaps",
    "image",
    "keypoints_2d",
    "lpips",
    "oks",
    "pose_transfer",
    "protocols",
    "reid",
    "report",
    "study",
]
